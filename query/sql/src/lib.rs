//! SQL over every signal.
