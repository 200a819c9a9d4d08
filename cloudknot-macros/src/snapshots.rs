//! Expansions, compared with what stands in `snapshots/`.
