"""The search for settings under which an estimator learns better, on Optuna."""
