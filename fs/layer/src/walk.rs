//! A layer directory, visited in order.
