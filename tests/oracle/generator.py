"""Random lives of one wallet, seeded: realistic in shape, nasty in detail. The maker keeps the oracle's own
life beside the steps it has made, so that it can aim at instants and amounts where rules meet."""
import heapq
import json
import random
import re
from decimal import Decimal

import scenes
import settings
import times
from life import Life

SOURCES = ("/render/eu-1", "/render/us-2", "/billing")


class Maker:
    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.seed = seed
        self.begin = times.parse("2024-01-01T00:00:00Z") + self.rng.randrange(0, 900 * times.DAY)
        if self.rng.random() < 0.3:
            self.begin = times.parse("2023-12-20T00:00:00Z") + self.rng.randrange(0, 20 * times.DAY)
        self.finish = self.begin + self.rng.randint(430, 900) * times.DAY
        self.settings = settings.random_settings(self.rng, self.begin, self.finish)
        self.life = Life("ws_%d" % (seed % 1000), self.settings)
        self.wallet = self.life.wallet
        self.wall = self.begin
        self.steps = []
        self.sent = []                # accepted events, for duplicates and conflicts
        self.waiting = []             # (wall, number, action)
        self.ahead = None             # where other wallets have moved the clock to, in the batch of the next event
        self.number = 0

    # Time and chance

    def chance(self, share):
        return self.rng.random() < share

    def pick(self, *choices):
        return self.rng.choice(choices)

    def name(self, prefix):
        self.number += 1
        return "%s_%d%03x" % (prefix, self.number, self.rng.getrandbits(12))

    def later(self, wall, action):
        """Does something when the wall clock comes to it."""
        self.number += 1
        heapq.heappush(self.waiting, (max(wall, self.wall), self.number, action))

    def delay(self):
        """How long after its time a usual event arrives; now and then at and around the lateness."""
        draw = self.rng.random()
        if draw < 0.72:
            return self.rng.randrange(0, 5000)
        if draw < 0.80:
            return self.rng.randrange(0, 2 * times.HOUR)
        if draw < 0.86:
            return self.settings["allowed_lateness_ms"] + self.pick(-1, 0, 1)
        if draw < 0.93:
            return self.rng.randrange(0, 5 * times.DAY)
        if draw < 0.96:
            return self.rng.randrange(0, 34 * times.DAY)
        return -self.rng.randrange(0, self.settings["max_clock_skew_ms"])

    # Steps

    def tick(self, to, wall=None):
        self.wall = max(self.wall, to if wall is None else wall)
        step = {"tick_ms": to, "wall_ms": self.wall}
        self.steps.append(step)
        self.life.step(step)

    def send(self, kind, data, at, identity=None, wall=None, record=None, topic=None, edit=None):
        """One event, arriving at the wall clock of now; its result."""
        if wall is not None:
            self.wall = max(self.wall, wall)
        if identity is None:
            identity = (self.pick(*SOURCES), "%016x" % self.rng.getrandbits(64))
        if topic is None:
            topic = "wallet" if kind.split(".")[0] in ("contract", "topup", "wallet") else "generation"
        event = {"specversion": "1.0", "id": identity[1], "source": identity[0], "type": kind,
                 "subject": self.life.name, "time": self.spell(at), "datacontenttype": "application/json", "data": data}
        if edit is not None:
            edit(event)
        if record is None:
            record = self.wall - self.pick(0, 1, 40, 900, 5000)
            if self.chance(0.02):
                record = self.wall + self.pick(1, 5000, times.HOUR)
            elif self.chance(0.03):
                record = self.wall - self.rng.randrange(times.HOUR, 3 * times.DAY)
        result = self.arrive({"topic": topic, "event": event, "wall_ms": self.wall, "record_ms": record})
        if result["outcome"] not in ("quarantined", "free", "duplicate"):
            self.sent.append((topic, event))
        return result

    def resend(self, topic, event, record=None):
        return self.arrive({"topic": topic, "event": event, "wall_ms": self.wall,
                            "record_ms": self.wall if record is None else record})

    def arrive(self, step):
        if self.ahead is not None:
            step["tick_ms"], self.ahead = self.ahead, None
        self.steps.append(step)
        return self.life.step(step)

    def spell(self, at):
        """One instant, several spellings."""
        draw = self.rng.random()
        if draw < 0.85:
            return times.text(at)
        if draw < 0.92:
            return times.text(at + 2 * times.HOUR)[:-1] + self.pick("+02:00", "+02:00")
        if draw < 0.97:
            return times.text(at - 330 * times.MINUTE)[:-1] + "7-05:30"
        return times.text(at)[:-1].lower() + "999z"

    def run(self):
        count = self.rng.randint(18, 31)
        gap = (self.finish - self.begin) // count
        next_scene = self.begin
        made = 0
        while made < count or self.waiting:
            if len(self.steps) > 150:
                break
            if self.waiting and (made >= count or self.waiting[0][0] <= next_scene):
                wall, _, action = heapq.heappop(self.waiting)
                self.approach(wall)
                action()
                continue
            self.approach(next_scene)
            scenes.random_scene(self)
            made += 1
            if self.chance(0.25):
                next_scene += self.rng.randrange(0, 10 * times.MINUTE)
            else:
                next_scene += self.rng.randrange(0, gap * 8 // 3)
        if self.chance(0.7):
            self.tick(self.wall + self.pick(times.HOUR, 40 * times.DAY, 400 * times.DAY))
        return {"seed": self.seed, "wallet": self.life.name, "settings": self.settings, "steps": self.steps}

    def approach(self, wall):
        """Time goes by up to an instant: often the traffic of other wallets has moved the clock already, in a batch of
        its own or in that of the next event, so that what is due was not posted yet."""
        wall = max(wall, self.wall)
        if self.chance(0.15):
            self.tick_at_due(wall)
        if self.chance(0.18):
            to = max(0, wall - self.pick(0, 1, 1000, times.MINUTE, times.HOUR))
            if self.chance(0.5):
                self.ahead = to
            else:
                self.tick(to, wall)
        self.wall = max(self.wall, wall)

    def tick_at_due(self, until):
        due = self.life.first_due
        if due is not None and self.wall < due <= until:
            for off in self.pick((-1, 0), (0,), (-1,), (0, 1), (1,)):
                self.tick(due + off)


def make_life(seed):
    """The life, and what must come of it."""
    maker = Maker(seed)
    life = maker.run()
    return life, maker.life.expected()


_NUMBER = re.compile(r'"@number:([^"]*)"')


def to_json(value):
    """Exact decimals become JSON numbers as they are spelled."""
    return _NUMBER.sub(r"\1", json.dumps(value, default=_mark, separators=(",", ":")))


def _mark(value):
    if isinstance(value, Decimal):
        return "@number:" + str(value)
    raise TypeError("not JSON: %r" % (value,))
