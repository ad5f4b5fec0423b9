//! Log lines and spans in columns.
