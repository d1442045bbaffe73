"""Forecasting with recurrent networks."""
