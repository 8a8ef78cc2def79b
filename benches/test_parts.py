"""Samples of perf, as the parts of the work that they belong to."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.append(str(Path(__file__).resolve().parent))

from parts import part_of, samples

SCRIPT = """ledger-0 
\t  3c90f0 __rustc::__rust_alloc
\t  975c34 creditstream::wallet::job::remember
\t  869805 creditstream::ledger::process::process

rdk:broker1 
\t  7f0000 LZ4_compress_fast_extState_fastReset

ledger-0 
\t  aaaaaa creditstream::wallet::encode::entry
\t  bbbbbb creditstream::wallet::apply::apply

ledger-0 
\t  cccccc <creditstream::wallet::state::Wallet as serde_core::ser::Serialize>::serialize
\t  dddddd creditstream::ledger::wallets::WalletTable::put

ledger-0 
\t  eeeeee creditstream::ledger::worker::Worker<W>::run

tokio-rt-worker 
"""


class Parts(unittest.TestCase):
    def test_the_innermost_function_that_names_a_part_decides(self) -> None:
        found = [part_of(thread, stack) for thread, stack in samples(SCRIPT)]
        self.assertEqual(found, ["identities", "librdkafka", "encode", "wallets", "other", "other"])


if __name__ == "__main__":
    unittest.main()
