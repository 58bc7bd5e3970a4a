//! Key chains that deny each other.

use homehost_protocol::chain::Chain;

/// How two key chains of one root contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fork {
    /// In the devices of one epoch, which a rotation ends.
    Devices,
    /// In the epochs themselves: a recovery key signed two events in the
    /// place of one. Nothing mends that.
    Epochs,
}

impl Fork {
    /// Of two chains that do.
    pub(crate) fn of(one: &Chain, other: &Chain) -> Self {
        if one.epoch_head() == other.epoch_head() { Self::Devices } else { Self::Epochs }
    }

    /// What its owner should know and do.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::Devices => {
                "others hold a list of machines of this identity that denies the one here: its \
                 key signed two different events. If a machine was restored from a backup, stop \
                 it; then run `homehost id rotate`, which ends the conflict"
            }
            Self::Epochs => {
                "others hold a key chain of this identity that denies the one here: its recovery \
                 key was used twice in one epoch, perhaps after an old backup, perhaps by a \
                 thief. Nodes mark its servers for as long as they know both chains, and a \
                 rotation would mend nothing: begin as somebody new: `homehost down --games`, \
                 move the folder `identity` away (keep it), and run `homehost up`"
            }
        }
    }
}
