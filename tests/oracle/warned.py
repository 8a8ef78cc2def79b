"""Warnings about one wallet: runway, expiring, overdraft unpaid (domain §8). When each is due, what is remembered of it,
and what arms it again. A hold that times out warns with its own posting (`contract_events.post_due`)."""
import times

DAY = times.DAY
RUNWAY, EXPIRING, OVERDRAFT = 6, 7, 8   # ranks at one instant, after everything else that is due
THRESHOLDS = (30, 7, 1)                 # days before plan credits expire
OVERDRAFT_LASTS = 7 * DAY


class Warnings:
    def __init__(self, wallet):
        self.wallet = wallet
        self.charged = {}             # UTC day -> credits charged in it, given back or not
        self.given_back = {}          # the same of what was given back, by the day of the charge; only to count a rule
        self.first_day = None         # of the earliest charge ever
        self.last_day = None          # of the latest
        self.runway_warned = False
        self.runways = 0
        self.expiring_warned = {}     # contract -> (expiry, days) of its last warning
        self.overdraft_since = None
        self.overdraft_warned = False
        self.overdrafts = 0
        self.at_last_end = (0, 0, 0)  # latest instant, available, overdraft after the last unit; only to count rules
        self.unused_before = {}       # likewise

    def hit(self, rule):
        self.wallet.hit(rule)

    # Runway

    def charge(self, credits, at):
        """A charge counts in the day of its own event time, whenever it arrives."""
        day, today = at // DAY, self.wallet.seen_until // DAY
        self.charged[day] = self.charged.get(day, 0) + credits
        if self.first_day is None or day < self.first_day:
            if self.first_day is not None:
                self.hit("runway-late-charge-is-the-earliest")
            self.first_day = day
        if self.last_day is None or day > self.last_day:
            self.last_day = day
        if day < today - 7:
            self.hit("runway-late-charge-too-old-to-count")
        elif day == today - 7:
            self.hit("runway-late-charge-in-the-oldest-day")
        elif day < today:
            self.hit("runway-late-charge-in-its-own-day")

    def give_back(self, credits, at):
        self.given_back[at // DAY] = self.given_back.get(at // DAY, 0) + credits

    def pace(self, day):
        """(credits charged in the 7 whole days before a day, days that these stand for)"""
        charged = 0
        if self.last_day >= day - 7:
            charged = sum(self.charged.get(before, 0) for before in range(day - 7, day))
        return charged, min(7, max(1, day - self.first_day))

    def short(self, available, day):
        """Credits for less than 3 days, some left and some used."""
        if available <= 0:
            return False
        charged, days = self.pace(day)
        return charged > 0 and available * days < 3 * charged

    def runway_due(self):
        """The first instant at which it is short as the wallet stands: now, or the midnight to come. From midnight to
        midnight, without another charge, what is charged only falls and its days only grow: later ones need no look."""
        if self.runway_warned or self.first_day is None:
            return None
        latest, available = self.wallet.seen_until, self.wallet.available()
        today = latest // DAY
        if self.short(available, today):
            return latest
        return (today + 1) * DAY if self.short(available, today + 1) else None

    # Expiring

    def unused(self):
        """{(contract, expiry): what is left of its plan credits}, nothing left among them"""
        left = {}
        for grant in self.wallet.open_grants:
            if grant.contract is not None:
                lot = (grant.contract.id, grant.expires_at)
                left[lot] = left.get(lot, 0) + grant.remaining
        return left

    def expiring_due(self):
        """[(when, contract, expiry, days, credits)]"""
        latest, found = self.wallet.seen_until, []
        for (contract_id, expiry), credits in self.unused().items():
            if credits == 0 or latest >= expiry:
                continue
            for days in self.open_thresholds(contract_id, expiry):
                if days > 1 and expiry - smaller(days) * DAY <= latest:
                    continue
                found.append((max(expiry - days * DAY, latest), contract_id, expiry, days, credits))
        return found

    def open_thresholds(self, contract_id, expiry):
        warned = self.expiring_warned.get(contract_id)
        return [days for days in THRESHOLDS if warned is None or warned[0] != expiry or days < warned[1]]

    # What comes due

    def due(self):
        """(when, rank, order among equals, what) of every warning to come, as the wallet stands."""
        items = []
        when = self.runway_due()
        if when is not None:
            items.append((when, RUNWAY, (), ("runway",)))
        for when, contract_id, expiry, days, credits in self.expiring_due():
            items.append((when, EXPIRING, (contract_id, expiry), ("expiring", contract_id, expiry, days, credits)))
        if self.overdraft_since is not None and not self.overdraft_warned:
            when = max(self.overdraft_since + OVERDRAFT_LASTS, self.wallet.seen_until)
            items.append((when, OVERDRAFT, (), ("overdraft_unpaid",)))
        return items

    def post(self, when, what):
        """Posts one; what its alert says."""
        kind, wallet = what[0], self.wallet
        if kind == "runway":
            amount, more = wallet.available(), {}
            self.runway_warned = True
            self.note_runway(when, amount)
        elif kind == "expiring":
            _, contract_id, expiry, days, amount = what
            more = {"days": days, "expires_at": expiry, "contract_id": contract_id}
            self.note_expiring(when, contract_id, expiry, days)
            self.expiring_warned[contract_id] = (expiry, days)
        else:
            amount, more = wallet.overdraft, {}
            self.overdraft_warned = True
            self.overdrafts += 1
            self.hit("overdraft-warned-again" if self.overdrafts > 1 else "overdraft-warned")
            self.hit("overdraft-warned-late" if when > self.overdraft_since + OVERDRAFT_LASTS else "overdraft-warned-on-its-day")
        wallet.post("noted", amount=amount)
        return dict({"kind": kind, "amount": amount}, **more)

    def after_unit(self, posted):
        """What a unit, whose types of entries are given, arms again, begins or ends."""
        wallet = self.wallet
        latest, available, overdraft = wallet.seen_until, wallet.available(), wallet.overdraft
        today = latest // DAY
        if self.first_day is not None:
            charged, days = self.pace(today)
            if self.runway_warned and available > 0 and available * days >= 3 * charged:
                self.runway_warned = False
                self.hit("runway-armed-again" if charged else "runway-armed-again-by-no-charges")
                if available * days == 3 * charged:
                    self.hit("runway-armed-again-by-exactly-three-days")
            elif self.runway_warned:
                self.note_still_warned(available, today)
            elif available <= 0 and charged:
                self.hit("runway-none-where-nothing-is-available")
            elif charged and available * days == 3 * charged:
                self.hit("runway-of-exactly-three-days-is-enough")
        if overdraft == 0:
            if self.overdraft_since is not None:
                self.hit("overdraft-paid-after-its-warning" if self.overdraft_warned else "overdraft-paid-in-time")
            self.overdraft_since, self.overdraft_warned = None, False
        elif self.overdraft_since is None:
            self.overdraft_since = latest
        elif overdraft > self.at_last_end[2]:
            self.hit("overdraft-grows-and-its-time-runs-on")
        elif overdraft < self.at_last_end[2]:
            self.hit("overdraft-paid-in-part-and-its-time-runs-on")
        self.at_last_end = (latest, available, overdraft)
        if not posted.isdisjoint(("granted", "charged", "reversed", "adjusted")):
            self.note_unused(posted)

    # Counting rules

    def note_runway(self, when, available):
        latest, day = self.wallet.seen_until, when // DAY
        charged, days = self.pace(day)
        self.hit("runway-in-the-first-week" if days < 7 else "runway-in-a-whole-week")
        if self.runways:
            self.hit("runway-warned-again")
        self.runways += 1
        if when == latest:
            self.hit("runway-at-once")
        else:
            self.hit("runway-at-midnight")
        back = sum(self.given_back.get(before, 0) for before in range(day - 7, day))
        if back and available * days >= 3 * (charged - back):
            self.hit("runway-counts-what-was-given-back")

    def note_still_warned(self, available, today):
        """Midnights went by with which the credits would have lasted; now they do not."""
        latest, before, _ = self.at_last_end
        if any(before > 0 and not self.short(before, day) for day in range(latest // DAY + 1, min(today, latest // DAY + 9))):
            self.hit("runway-not-armed-again-by-midnights")
        if available <= 0:
            self.hit("runway-not-armed-again-by-nothing-available")
            if available == 0 and self.pace(today)[0] == 0:
                self.hit("runway-not-armed-again-by-nothing-at-all")

    def note_expiring(self, when, contract_id, expiry, days):
        warned = self.expiring_warned.get(contract_id)
        larger = [more for more in self.open_thresholds(contract_id, expiry) if more > days]
        self.hit("expiring-%d-days" % days)
        self.hit("expiring-on-its-day" if when == expiry - days * DAY else "expiring-late")
        if larger:
            self.hit("expiring-skips-thresholds")
        if larger and self.wallet.seen_until == expiry - days * DAY:
            self.hit("expiring-skips-in-the-instant-of-the-next")
        if days > 1 and when == expiry - smaller(days) * DAY - 1:
            self.hit("expiring-late-a-millisecond-before-the-next")
        if when == expiry - 1:
            self.hit("expiring-in-the-last-millisecond")
        if warned is not None and expiry < warned[0]:
            self.hit("expiring-again-as-the-end-has-moved")
        if warned is not None and expiry > warned[0]:
            self.hit("expiring-of-the-next-term")
        if any(other != contract_id for other in self.expiring_warned):
            self.hit("expiring-of-another-contract")

    def note_unused(self, posted):
        latest, unused = self.wallet.seen_until, self.unused()
        for (contract_id, expiry), credits in unused.items():
            open_now = [days for days in self.open_thresholds(contract_id, expiry) if expiry - days * DAY <= latest < expiry]
            if credits and latest == expiry and "reversed" in posted:
                self.hit("expiring-none-at-the-expiry")
            if open_now and credits == 0:
                self.hit("expiring-none-where-nothing-is-left")
            if open_now and credits and "reversed" in posted and self.unused_before.get((contract_id, expiry)) == 0:
                self.hit("expiring-as-credits-came-back")
            if credits and "reversed" in posted and contract_id in self.expiring_warned and not open_now:
                self.hit("expiring-not-again-as-credits-came-back")
        self.unused_before = unused


def smaller(days):
    return THRESHOLDS[THRESHOLDS.index(days) + 1]
