//! `data` as it stands in a record: its members are found, and none is judged.

use super::scan::{Fault, Raw, Scanner};

/// `data` as it stands in a record. Large, so it is filled where it stands.
#[derive(Default)]
pub(super) struct RawData<'a> {
    /// `None`: absent.
    whole: Option<Raw<'a>>,
    pub(super) members: Members<'a>,
    /// The first fault of an object that is JSON: said only if this is the data of a type that has some.
    pub(super) fault: Option<String>,
}

/// Every field that any type reads; those that a type does not read are not looked at.
#[derive(Default)]
pub(super) struct Members<'a> {
    pub(super) job_id: Option<Raw<'a>>,
    pub(super) asset: Option<Raw<'a>>,
    pub(super) asset_id: Option<Raw<'a>>,
    pub(super) images: Option<Raw<'a>>,
    pub(super) seconds: Option<Raw<'a>>,
    pub(super) model: Option<Raw<'a>>,
    pub(super) user_id: Option<Raw<'a>>,
    pub(super) project_id: Option<Raw<'a>>,
    pub(super) contract_id: Option<Raw<'a>>,
    pub(super) plan: Option<Raw<'a>>,
    pub(super) starts_at: Option<Raw<'a>>,
    pub(super) term_months: Option<Raw<'a>>,
    pub(super) topup_id: Option<Raw<'a>>,
    pub(super) amount_usd: Option<Raw<'a>>,
    pub(super) adjustment_id: Option<Raw<'a>>,
    pub(super) credits: Option<Raw<'a>>,
    pub(super) reason: Option<Raw<'a>>,
    pub(super) actor: Option<Raw<'a>>,
    pub(super) expires_at: Option<Raw<'a>>,
    pub(super) reference: Option<Raw<'a>>,
    pub(super) effective_at: Option<Raw<'a>>,
    pub(super) overdraft_limit: Option<Raw<'a>>,
    pub(super) low_percent: Option<Raw<'a>>,
    pub(super) critical_percent: Option<Raw<'a>>,
}

impl<'a> Members<'a> {
    fn member(&mut self, name: &str) -> Option<&mut Option<Raw<'a>>> {
        Some(match name {
            "job_id" => &mut self.job_id,
            "asset" => &mut self.asset,
            "asset_id" => &mut self.asset_id,
            "images" => &mut self.images,
            "seconds" => &mut self.seconds,
            "model" => &mut self.model,
            "user_id" => &mut self.user_id,
            "project_id" => &mut self.project_id,
            "contract_id" => &mut self.contract_id,
            "plan" => &mut self.plan,
            "starts_at" => &mut self.starts_at,
            "term_months" => &mut self.term_months,
            "topup_id" => &mut self.topup_id,
            "amount_usd" => &mut self.amount_usd,
            "adjustment_id" => &mut self.adjustment_id,
            "credits" => &mut self.credits,
            "reason" => &mut self.reason,
            "actor" => &mut self.actor,
            "expires_at" => &mut self.expires_at,
            "reference" => &mut self.reference,
            "effective_at" => &mut self.effective_at,
            "overdraft_limit" => &mut self.overdraft_limit,
            "low_percent" => &mut self.low_percent,
            "critical_percent" => &mut self.critical_percent,
            _ => return None,
        })
    }
}

impl<'a> RawData<'a> {
    /// Reads the value that stands there, whatever it is.
    ///
    /// # Errors
    /// It is not JSON.
    pub(super) fn scan(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Fault> {
        if scanner.peek() != Some(b'{') {
            self.whole = Some(scanner.value()?);
            return Ok(());
        }
        let RawData { members, fault, .. } = self;
        let begin = scanner.place();
        scanner.object(|scanner, name| {
            let value = scanner.value()?;
            let Some(name) = name.text() else {
                fault.get_or_insert_with(|| format!("{} is no name", name.spelt));
                return Ok(());
            };
            if members.member(&name).is_some_and(|member| member.replace(value).is_some()) {
                fault.get_or_insert_with(|| format!("{name} stands twice"));
            }
            Ok(())
        })?;
        self.whole = Some(Raw::object(scanner.since(begin)));
        Ok(())
    }

    /// Whether there is none, or it is null.
    pub(super) fn is_absent(&self) -> bool {
        self.whole.is_none_or(Raw::is_null)
    }

    /// Whether there is anything, null included.
    pub(super) fn is_there(&self) -> bool {
        self.whole.is_some()
    }

    pub(super) fn is_object(&self) -> bool {
        self.whole.is_some_and(Raw::is_object)
    }
}
