//! One member, still pure: log frames, group commit, release of effects, apply, forwarding, sessions.
