"""The oracle's commands: generate, evaluate, rules, selftest (see README.md)."""
import argparse
import gc
import json
import sys
import unittest
from decimal import Decimal

import generator
import life
import rules


def write(value):
    sys.stdout.write(generator.to_json(value) + "\n")
    sys.stdout.flush()


def read(line):
    return json.loads(line, parse_float=Decimal)


def generate(seed, count):
    gc.set_threshold(100_000)  # lives hold no cycles worth looking for so often
    for number in range(seed, seed + count):
        made, expected = generator.make_life(number)
        write({"life": made, "expected": expected})


def evaluate():
    for line in sys.stdin:
        if line.strip():
            given = read(line)
            write(life.expected_of(given.get("life", given)))


def selftest():
    import handmade
    import handmade_warnings
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromModule(module)
                               for module in (handmade, handmade_warnings))
    return 0 if unittest.TextTestRunner().run(suite).wasSuccessful() else 1


def main():
    parser = argparse.ArgumentParser(description="What must come out of a wallet's life.")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("generate", help="print lives with their expected results, one a line")
    making.add_argument("--seed", type=int, required=True)
    making.add_argument("--count", type=int, required=True)
    commands.add_parser("evaluate", help="read lives, one a line; print the expected result of each")
    commands.add_parser("rules", help="print the names of all rules that lives are to meet, one a line")
    commands.add_parser("selftest", help="test the oracle by lives worked out by hand")
    options = parser.parse_args()
    if options.command == "generate":
        generate(options.seed, options.count)
    elif options.command == "evaluate":
        evaluate()
    elif options.command == "rules":
        print("\n".join(rules.NAMES))
    else:
        return selftest()
    return 0


if __name__ == "__main__":
    sys.exit(main())
