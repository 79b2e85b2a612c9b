//! Histories, models and verdicts: which consistency a recorded history has.
