//! One record before it has a spelling: what happened, what is wrong with it, and what must become of it.
//!
//! Items are small and `Copy`: they wait in queues until they are delivered, and are spelt only then.

use super::faults::Fault;
use crate::event::{Reason, SourceKind};
use crate::time::Timestamp;

/// The three plans of the default pricing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plan {
    /// 200 credits a month.
    Lite,
    /// 1,100 credits a month.
    Performance,
    /// 3,300 credits a month.
    Scale,
}

impl Plan {
    /// All of them.
    pub const ALL: [Plan; 3] = [Plan::Lite, Plan::Performance, Plan::Scale];

    /// The name in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Plan::Lite => "lite",
            Plan::Performance => "performance",
            Plan::Scale => "scale",
        }
    }

    /// The next greater one.
    pub(super) const fn greater(self) -> Option<Plan> {
        match self {
            Plan::Lite => Some(Plan::Performance),
            Plan::Performance => Some(Plan::Scale),
            Plan::Scale => None,
        }
    }

    /// What a month of it brings.
    pub(super) const fn credits_per_month(self) -> i64 {
        match self {
            Plan::Lite => 200,
            Plan::Performance => 1_100,
            Plan::Scale => 3_300,
        }
    }
}

/// Top-up packs: US dollars and the credits that they bring.
pub(super) const PACKS: [(u32, i64); 5] =
    [(100, 555), (250, 1_388), (500, 2_777), (1_000, 5_555), (2_000, 11_111)];

/// What usage made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    Images(u32),
    VideoMillis(u64),
    /// Nothing that costs: the number of a free type.
    Free(u8),
}

impl Made {
    /// The price by the given rates: 1 credit an image, 3 a second of video, rounded up.
    pub(super) const fn credits(self) -> i64 {
        match self {
            Made::Images(images) => images as i64,
            Made::VideoMillis(millis) => (millis * 3).div_ceil(1_000) as i64,
            Made::Free(_) => 0,
        }
    }
}

/// An event of the usage topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub source: u8,
    /// Asked for, not made yet.
    pub is_request: bool,
    pub made: Made,
    pub job: u64,
    /// 0: the whole job; else the number of the asset.
    pub asset: u8,
    pub model: u8,
    pub user: u16,
    pub project: u16,
}

/// The end of a job that is not its completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub source: u8,
    pub job: u64,
    /// 0: the whole job; else the number of the asset.
    pub asset: u8,
    /// Place of its type among [`super::encode::ENDINGS`].
    pub ending: u8,
    /// 0: none is given.
    pub reason: u8,
}

/// An event of the wallet topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct WalletChange {
    /// Contract, top-up or adjustment id.
    pub business: u64,
    pub kind: ChangeKind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ChangeKind {
    Contract {
        plan: Plan,
        starts_at: Timestamp,
    },
    /// From `plan` on, which the contract has had so far, to another one.
    PlanChange {
        from: Plan,
        to: Plan,
        effective_at: Timestamp,
    },
    Renewal {
        term_months: u8,
    },
    Cancellation,
    /// None of them is ever reached.
    Limits {
        overdraft: Overdraft,
        low_percent: u8,
        critical_percent: u8,
    },
    Topup {
        amount_usd: u32,
        credits: i64,
    },
    Adjustment {
        credits: i64,
        expires_at: Option<Timestamp>,
    },
}

/// An overdraft limit that changes nothing for the traffic that is made here.
#[derive(Clone, Copy, Debug)]
pub(super) enum Overdraft {
    Absent,
    Unlimited,
    Plan,
    Great,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    Usage(Usage),
    Ended(Ended),
    Wallet(WalletChange),
}

/// The record's key. Only [`Key::Wallet`] is what producers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Wallet,
    OtherWallet(u32),
    Random(u64),
    Absent,
}

/// What must become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Costs that many credits.
    Charged {
        /// The cost.
        credits: i64,
        /// Its job was refunded before: they are given back at once.
        is_given_back: bool,
    },
    /// A charge is given back.
    Reversed {
        /// What it cost.
        credits: i64,
    },
    /// The estimated cost is held.
    Held,
    /// What is held is released, and nothing charged.
    Released,
    /// Accepted, and nothing else.
    Noted,
    /// A top-up brings that many credits.
    Granted {
        /// Its credits.
        credits: i64,
    },
    /// A contract begins or changes.
    Contract {
        /// The plan that it has from its first month on.
        plan: Plan,
        /// What it grants for that month now.
        credits: i64,
    },
    /// Limits are changed.
    Limits,
    /// An adjustment, up or down.
    Adjusted {
        /// Its credits, signed.
        credits: i64,
    },
    /// Counted, nothing else.
    Free,
    /// Known already.
    Duplicate,
    /// Refused.
    Quarantined(Reason),
}

/// One record to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// The topic that it is sent to, which a faulty one may not belong on.
    pub source_kind: SourceKind,
    /// The wallet's number, from 1.
    pub wallet: u32,
    pub event_id: u128,
    pub at: Timestamp,
    pub body: Body,
    pub key: Key,
    /// Its place among the events of its job counts: it keeps the wallet's own key, and is never late.
    pub is_ordered: bool,
    pub binary: bool,
    /// The same content, spelt differently.
    pub respelt: bool,
    pub fault: Option<&'static Fault>,
    pub expected: Expected,
}

impl Item {
    /// A good event that arrives for the first time, with the key that it should have.
    pub(super) fn good(wallet: u32, event_id: u128, at: Timestamp, body: Body) -> Item {
        let source_kind = match body {
            Body::Usage(_) | Body::Ended(_) => SourceKind::Generation,
            Body::Wallet(_) => SourceKind::Wallet,
        };
        let expected = Expected::from(body);
        Item {
            source_kind,
            wallet,
            event_id,
            at,
            body,
            key: Key::Wallet,
            is_ordered: false,
            binary: false,
            respelt: false,
            fault: None,
            expected,
        }
    }

    /// The same made bad.
    pub(super) fn with_fault(self, fault: &'static Fault) -> Item {
        let expected = Expected::Quarantined(fault.reason);
        Item { binary: fault.binary, respelt: false, fault: Some(fault), expected, ..self }
    }
}

/// What a good event becomes when it arrives for the first time.
impl From<Body> for Expected {
    fn from(body: Body) -> Expected {
        match body {
            Body::Usage(Usage { made: Made::Free(_), .. }) => Expected::Free,
            Body::Usage(Usage { is_request: true, .. }) => Expected::Held,
            Body::Usage(usage) => Expected::Charged { credits: usage.made.credits(), is_given_back: false },
            Body::Ended(_) => Expected::Noted,
            Body::Wallet(change) => match change.kind {
                ChangeKind::Contract { plan, .. } => {
                    Expected::Contract { plan, credits: plan.credits_per_month() }
                }
                // What reaches back is an upgrade; what is booked ahead is beyond what is due.
                ChangeKind::PlanChange { from, to, .. } => {
                    let credits = (to.credits_per_month() - from.credits_per_month()).max(0);
                    Expected::Contract { plan: if credits > 0 { to } else { from }, credits }
                }
                ChangeKind::Renewal { .. } | ChangeKind::Cancellation => {
                    Expected::Contract { plan: Plan::Lite, credits: 0 }
                }
                ChangeKind::Limits { .. } => Expected::Limits,
                ChangeKind::Topup { credits, .. } => Expected::Granted { credits },
                ChangeKind::Adjustment { credits, .. } => Expected::Adjusted { credits },
            },
        }
    }
}
