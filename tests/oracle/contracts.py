"""One contract: its months, terms and plans (domain §2). Knows no credits but what was granted a month."""
import times


class Contract:
    def __init__(self, contract_id, start, plan, months):
        self.id = contract_id
        self.start = start
        self.first_plan = plan
        self.seams = [months]       # the month in which each term ends, counted from the first day
        self.renewal_plans = {}     # month of the seam -> plan, where a renewal names one
        self.cut = None             # where a cancellation has moved the end
        self.cancelled = False
        self.changes = []           # of Change, in order of arrival
        self.granted = {}           # month -> credits granted for it so far
        self.next_month = 0         # the first month without its allocation
        self.end_posted = False

    def month(self, number):
        return times.plus_months(self.start, number)

    def end(self):
        last = self.month(self.seams[-1])
        return last if self.cut is None else min(last, self.cut)

    def runs_at(self, at):
        return self.start <= at < self.end()

    def term_under_way(self, at):
        """Index of the term at an instant; before the start it is the first."""
        for index, seam in enumerate(self.seams):
            if at < self.month(seam):
                return index
        return len(self.seams) - 1

    def month_under_way(self, at):
        number = 0
        while self.month(number + 1) <= at:
            number += 1
        return number

    def term_end_of_month(self, number):
        """Plan credits live until the end of the term that their month is in, or the earlier cut."""
        for seam in self.seams:
            if number < seam:
                return min(self.month(seam), self.end())
        return self.end()

    def overlaps(self, start, end):
        """A contract that was cancelled back to its first instant takes no room."""
        if self.start >= self.end():
            return False
        return start < self.end() and self.start < end

    # Plans

    def plan_points(self, only_applied=False):
        """(since, plan) in order: first plan, then renewals before changes of the same instant, then
        in order of arrival. The last one at an instant is the one in force from it."""
        if not self.changes and not self.renewal_plans:
            return [(self.start, self.first_plan)]
        points = [(self.start, 0, 0, self.first_plan)]
        for seam, plan in self.renewal_plans.items():
            points.append((self.month(seam), 1, 0, plan))
        for order, change in enumerate(self.changes):
            if change.applied or not only_applied:
                points.append((change.effective, 2, order, change.plan))
        return [(since, plan) for since, _, _, plan in sorted(points)]

    def plan_at(self, at):
        plan = None
        for since, name in self.plan_points():
            if since <= at:
                plan = name
        return plan

    def worth(self, number, prices):
        """The greatest allocation of any plan in force during a month, as far as changes have come into
        force. Each plan counts by the file in force when it came into force in this month."""
        begins, ends = self.month(number), self.month(number + 1)
        points = self.plan_points(only_applied=True)
        greatest = 0
        for index, (since, plan) in enumerate(points):
            until = points[index + 1][0] if index + 1 < len(points) else ends
            since = max(since, begins)
            if since < min(until, ends):
                greatest = max(greatest, prices.allocation(plan, since))
        return greatest

    # What comes due

    def due(self):
        """(when, rank, detail) of everything still to come. Ranks of one instant: 1 end, 3 plan change,
        4 allocation (0 is an expiry, 2 a renewal, which posts nothing of its own, 5 a hold's timeout)."""
        items = []
        end = self.end()
        if not self.end_posted:
            items.append((end, 1, None))
        for order, change in enumerate(self.changes):
            if not change.applied and change.effective < end:
                items.append((change.effective, 3, order))
        if self.month(self.next_month) < end and self.next_month < self.seams[-1]:
            items.append((self.month(self.next_month), 4, self.next_month))
        return items


class Change:
    def __init__(self, effective, plan):
        self.effective = effective
        self.plan = plan
        self.applied = False
