//! The stored forms of a wallet and of a job: yesterday's must still be read, whatever today's code writes.
//!
//! A test that fails here means: shards that are restarted cannot read their state. Give the stored form another
//! number and keep reading this one, or let the shard rebuild from the ledger; then take over what is printed.

use super::*;
use crate::event::job_key;

/// A wallet with something of everything.
const LIFE: &str = "contract c1 lite 2026-10-15 months=1 at=10-15  => contract_started lite; granted +200 plan:c1:0(+200=200)
     change c1 scale from=11-20 at=10-16           => contract_changed lite
     renew c1 plan=capped months=2 at=10-16        => contract_renewed lite
     charge j0 250 images at=10-16                 => charged -250 plan:c1:0(-200=0)
     topup t1 100                                  => granted +555 topup:t1(+555=555); overdraft_repaid 50 topup:t1(-50=505)
     adjust a1 25 expires=11-20                    => adjusted +25 adjustment:a1(+25=25)
     adjust a2 -5                                  => adjusted -5 adjustment:a1(-5=20)
     limits overdraft=40 low=30                    => limits_changed
     hold j1 4 images                              => held +4 j1
     hold j2 8 seconds asset=a                     => held +24 j2/a
     charge j3 2 seconds model=veo-3 asset=a       => charged -9 adjustment:a1(-9=11)
     charge j3 600 images asset=b                  => refused 600
     cancel c1 from=12-20 at=11-15                 => contract_changed capped; released -4 j1; released -24 j2/a; granted +100 plan:c1:1(+100=100)
     hold j4 4 images at=11-15                     => held +8 j4
     charge j5 2 images at=11-15                   => charged -4 plan:c1:1(-4=96)
     failed j3 asset=a                             => reversed +9 adjustment:a1(+9=20)";

const WALLET: &str = "\
    18f096c18eb468f096c18eb46880c087c8bb680102633180b0decda7688090fc8bd2680201020380b0decda768\
    046c69746580c087c8bb680663617070656480f085e4be68057363616c65029003c801010100011e80c087c8bb\
    68040000000090030000000a80b0decda7680180c087c8bb6802068cc40200000100c801c00100000a80c087c8\
    bb68018090fc8bd2681517c8c402020261313228000014a087c18eb4680180f085e4be680918c8c40201027431\
    a09c01d608f20764081ea087c18eb468000708b0c4020180b0ba9abc68026a340010008cc4021000018cc40201\
    080000d608010150011e000162ab8c07671fe5666ffc150f27c50dea0200efaea8d1fcffd9807380c087c8bb68\
    1701020008000001c6df939b8ef2dcfc8a0180c4cf8db46818000000001200";

/// A job charged as a whole, a job of assets, a charged asset, and one that was refused.
const MEMOS: [(&str, &str, &str); 4] = [
    (
        "j0",
        "",
        "\
         0101068cc402f40300000109706c616e3a63313a309003010000046c697465026331027531027031010001\
         0000",
    ),
    ("j3", "", "0100000001000190320f1c70f48710ee6452c9a98b6510"),
    (
        "j3",
        "a",
        "\
         01010eb0c402120001010d61646a7573746d656e743a61311201010576656f2d33046c6974650263310275\
         31027031010100016100",
    ),
    (
        "j3",
        "b",
        "\
         01010fb0c402b009010000010000046c69746502633102753102703101000001620134996cbc3ffb5fcdc6\
         3b50fc5c000e58",
    ),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|place| u8::from_str_radix(&hex[place..place + 2], 16).unwrap()).collect()
}

#[test]
fn yesterdays_wallet_still_reads() {
    let book = play(LIFE);
    let today = hex(&postcard::to_allocvec(&book.wallet).unwrap());
    assert_eq!(today, WALLET, "the stored form of a wallet changed");
    let read: Wallet = postcard::from_bytes(&bytes(WALLET)).unwrap();
    assert_eq!(read, book.wallet);
    // Buckets are no part of equality, but of the stored form.
    assert_eq!(format!("{read:?}"), format!("{:?}", book.wallet));
}

#[test]
fn yesterdays_jobs_still_read() {
    let book = play(LIFE);
    let memos = MEMOS.map(|(job, asset, _)| book.memo(job, asset).unwrap());
    let today = memos.map(|memo| hex(&memo.to_bytes()));
    assert_eq!(today, MEMOS.map(|(_, _, stored)| stored.to_owned()), "the stored form of a job changed");
    let read = MEMOS.map(|(_, _, stored)| JobMemo::from_bytes(&bytes(stored)).unwrap());
    assert_eq!(read.each_ref().map(|memo| &**memo), memos);
    let job = JobMemo::from_bytes(&bytes(MEMOS[1].2)).unwrap();
    assert_eq!(job.latest_asset, Some(job_key("w1", "j3", "b")));
}

#[test]
fn what_is_no_stored_job_is_not_read() {
    let book = play(LIFE);
    let stored = book.memo("j0", "").unwrap().to_bytes();
    assert_eq!(JobMemo::from_bytes(&[]), None);
    let mut other_format = stored.clone();
    other_format[0] += 1;
    assert_eq!(JobMemo::from_bytes(&other_format), None);
    for length in 0..stored.len() {
        assert_eq!(JobMemo::from_bytes(&stored[..length]), None, "cut to {length} bytes");
    }
}
