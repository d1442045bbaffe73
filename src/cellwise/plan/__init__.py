"""The narrow waist between equations and backends: plain frozen data, no Python callables of the user's."""

from cellwise.plan.layout import ParameterSpec, parameter_layout, state_sizes

__all__ = ["ParameterSpec", "parameter_layout", "state_sizes"]
