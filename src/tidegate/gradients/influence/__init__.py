"""The influence of weights on states, carried forward in time: the engine, and one tracker per rule."""
