//! One file per reconcile loop.
