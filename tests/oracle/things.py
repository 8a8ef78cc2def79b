"""What a wallet is made of (domain §3)."""

NEVER = float("inf")


class Grant:
    def __init__(self, kind, key, credits, granted_at, expires_at, priority, contract=None):
        self.kind = kind
        self.key = key                # orders grants that are alike in everything else
        self.granted = credits
        self.remaining = credits
        self.repaid = 0               # how much of it went into overdraft
        self.repaid_order = (0, 0)    # when it last did, in order of posting, and where in that entry
        self.repaid_time = None
        self.granted_at = granted_at
        self.expires_at = expires_at  # None: never
        self.priority = priority
        self.expiry_posted = False
        self.contract = contract

    def expiry(self):
        return NEVER if self.expires_at is None else self.expires_at

    def valid_at(self, at):
        """Before its expiry, by event time; and not yet closed by the posting of its expiry."""
        return not self.expiry_posted and at < self.expiry()


class Charge:
    def __init__(self, cost, draws, overdraft, refused, asset_type, model, plan, at=None):
        self.cost = cost
        self.draws = draws            # [(grant, credits)] in burn-down order
        self.overdraft = overdraft    # the share no grant covered
        self.refused = refused
        self.reversed = False
        self.day = None               # the day with which it can be given back last; a job may be remembered for longer
        self.at = at                  # event time of what was charged
        self.bucket = (asset_type, model, plan)


class Job:
    def __init__(self):
        self.charges = {}             # asset_id, or None for the whole job -> Charge
        self.ended = set()            # what a failed, rejected or cancelled named
        self.undone = set()           # what a failed, rejected or refunded named
        self.counted = False
        self.by_asset = False         # some asset of it was charged or refused, remembered or not
        self.day = -1                 # the day with which its memory ends: the latest of event and clock
        self.first_day = 0            # as of the event under way: what is older is not given back
        self.asset_days = {}          # the same of each asset of its own

    def remember(self, asset_id, day):
        self.day = max(self.day, day)
        if asset_id is not None:
            self.asset_days[asset_id] = self.day

    def forget(self, asset_id):
        del self.asset_days[asset_id]
        self.charges.pop(asset_id, None)
        self.ended.discard(asset_id)
        self.undone.discard(asset_id)


class Hold:
    def __init__(self, credits, deadline):
        self.made = credits           # only to count a rule
        self.left = credits
        self.deadline = deadline
