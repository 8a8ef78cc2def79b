"""What usage costs, what plans grant, what top-ups bring (domain §1, §2): all by version."""
from decimal import ROUND_CEILING, Decimal

import times


class Prices:
    def __init__(self, pricing):
        self.cards = _by_date(pricing["rate_card"])
        self.plans = _by_date(pricing["plans"])
        self.topups = _by_date(pricing["topups"])

    def rate(self, asset, model, at):
        """The rate of the card in force; one given for this very model goes before the asset's own."""
        table = _in_force(self.cards, at)["rates"][asset]
        models = table.get("models", {})
        if model is not None and model in models:
            return Decimal(models[model]["credits"])
        return Decimal(table["credits"])

    def cost(self, asset, quantity, model, at):
        """Quantity x rate, exact, rounded up once."""
        return int((Decimal(quantity) * self.rate(asset, model, at)).to_integral_value(ROUND_CEILING))

    def plan(self, name, at):
        """The plan as the file in force at that instant has it, or None."""
        return _in_force(self.plans, at)["plan"].get(name)

    def of_contract(self, name, at):
        """The plan as the latest file up to that instant has it in which it stands: off sale, it goes on for its contracts."""
        for version in reversed(self.plans):
            if version["since"] <= at and name in version["plan"]:
                return version["plan"][name]
        return {"credits_per_month": 0}

    def allocation(self, name, at):
        return self.of_contract(name, at)["credits_per_month"]

    def overdraft_limit(self, name, at):
        return self.of_contract(name, at).get("overdraft_limit")

    def thresholds(self, name, at):
        """(low, critical), percent; None: as the configuration says."""
        plan = self.of_contract(name, at)
        return plan.get("low_percent"), plan.get("critical_percent")

    def pack(self, amount_usd, at):
        """Credits of a listed pack, or None."""
        for pack in _in_force(self.topups, at)["packs"]:
            if Decimal(pack["amount_usd"]) == amount_usd:
                return pack["credits"]
        return None

    def version(self, versions, at):
        return versions.index(_in_force(versions, at))

    def since(self, versions, at):
        return _in_force(versions, at)["since"]


def _by_date(versions):
    dated = []
    for version in versions:
        since = times.parse(version["effective_from"])
        if since is None:
            raise ValueError("effective_from is no time: %r" % (version["effective_from"],))
        dated.append(dict(version, since=since))
    return sorted(dated, key=lambda version: version["since"])


def _in_force(versions, at):
    """effective_from is inclusive."""
    found = None
    for version in versions:
        if version["since"] <= at:
            found = version
    if found is None:
        raise ValueError("no version of the prices is in force at %s" % times.text(at))
    return found
