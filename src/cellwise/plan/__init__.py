"""The narrow waist between equations and backends: plain frozen data, no Python callables of the user's."""

from cellwise.plan.build import plan_of
from cellwise.plan.layout import ParameterSpec, parameter_layout, state_sizes
from cellwise.plan.sequence_plan import Product, SequencePlan, Stage

__all__ = ["ParameterSpec", "Product", "SequencePlan", "Stage", "parameter_layout", "plan_of", "state_sizes"]
