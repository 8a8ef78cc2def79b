//! A proxy between an instance and the real broker that speaks Kafka's protocol as far as it must: it shows no address but
//! its own, and gives chosen requests an error that one broker on one machine does not come to by itself.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use super::wait_for;

/// A request, by its number in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Produce = 0,
    Metadata = 3,
    FindCoordinator = 10,
    Heartbeat = 12,
    InitProducerId = 22,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    TxnOffsetCommit = 28,
}

/// Codes of the protocol.
pub const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
pub const NOT_COORDINATOR: i16 = 16;
pub const NOT_ENOUGH_REPLICAS: i16 = 19;
pub const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
pub const INVALID_TXN_STATE: i16 = 48;
pub const PRODUCER_FENCED: i16 = 90;
pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;

/// What happens to requests of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The broker never hears of them: the proxy answers.
    Refuse,
    /// The broker does what they ask, and the answer is another one: as if it moved away right then.
    Deny,
    /// They wait in the proxy, and with them what comes after them on their connection.
    Hold,
    /// Their connection is cut, and the broker never hears of them.
    CutBefore,
    /// Their connection is cut when the broker has done what they ask: nobody is told.
    CutAfter,
}

struct Fault {
    api: Api,
    act: Act,
    code: i16,
    /// Of [`Api::Produce`]: to which topic.
    topic: String,
    times: usize,
    /// Only once all faults before it have happened.
    waits: bool,
}

/// What waits in the proxy.
#[derive(Default)]
struct Gate {
    held: Mutex<usize>,
    opened: Condvar,
}

/// A proxy on a free port, for as long as the test runs.
pub struct KafkaProxy {
    port: u16,
    faults: Arc<Mutex<Vec<Fault>>>,
    gate: Arc<Gate>,
}

impl KafkaProxy {
    /// For the broker at this address.
    pub fn to(broker: &str) -> KafkaProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = KafkaProxy { port, faults: Arc::default(), gate: Arc::default() };
        let (faults, gate) = (Arc::clone(&proxy.faults), Arc::clone(&proxy.gate));
        let broker = broker.to_owned();
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = TcpStream::connect(&broker) else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let (faults, gate) = (Arc::clone(&faults), Arc::clone(&gate));
                Connection { port, faults, gate, asked: Arc::default() }.serve(&near, &far);
            }
        });
        proxy
    }

    /// What an instance is told instead of the broker's address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The next requests of a kind are treated so, as many of them.
    pub fn next(&self, api: Api, act: Act, code: i16, times: usize) {
        let fault = Fault { api, act, code, topic: String::new(), times, waits: false };
        self.faults.lock().unwrap().push(fault);
    }

    /// Once all of that has happened, the next request of a kind is held.
    pub fn then_hold(&self, api: Api) {
        let fault = Fault { api, act: Act::Hold, code: 0, topic: String::new(), times: 1, waits: true };
        self.faults.lock().unwrap().push(fault);
    }

    /// No produce request for the topic comes through any more.
    pub fn deny_writes(&self, topic: &str, code: i16) {
        let (api, act, topic, times) = (Api::Produce, Act::Refuse, topic.to_owned(), usize::MAX);
        let fault = Fault { api, act, code, topic, times, waits: false };
        self.faults.lock().unwrap().push(fault);
    }

    /// All requests come through.
    pub fn allow_all(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// Waits until a request is held.
    #[track_caller]
    pub fn wait_until_held(&self, what: &str) {
        wait_for(what, super::proof::PATIENCE, || (*self.gate.held.lock().unwrap() > 0).then_some(()));
    }

    /// Sends on what is held.
    pub fn release(&self) {
        *self.gate.held.lock().unwrap() = 0;
        self.gate.opened.notify_all();
    }

    /// Waits until every fault has happened as often as it was to.
    #[track_caller]
    pub fn wait_until_used_up(&self, what: &str) {
        wait_for(what, super::proof::PATIENCE, || {
            self.faults.lock().unwrap().iter().all(|fault| fault.times == 0).then_some(())
        });
    }
}

/// A request that is under way.
struct Asked {
    api: i16,
    version: i16,
    fault: Option<(Act, i16)>,
}

#[derive(Clone)]
struct Connection {
    port: u16,
    faults: Arc<Mutex<Vec<Fault>>>,
    gate: Arc<Gate>,
    asked: Arc<Mutex<HashMap<i32, Asked>>>,
}

impl Connection {
    fn serve(self, near: &TcpStream, far: &TcpStream) {
        let clone = |stream: &TcpStream| stream.try_clone().unwrap();
        // Two threads answer the client.
        let to_client = Arc::new(Mutex::new(clone(near)));
        let (requests, client) = (self.clone(), Arc::clone(&to_client));
        let (from_client, to_broker) = (clone(near), clone(far));
        std::thread::spawn(move || requests.pass_requests(from_client, to_broker, &client));
        let from_broker = clone(far);
        std::thread::spawn(move || self.pass_answers(from_broker, &to_client));
    }

    fn pass_requests(&self, mut near: TcpStream, mut far: TcpStream, client: &Mutex<TcpStream>) {
        while let Some(frame) = read_frame(&mut near) {
            let mut request = Cursor::of(&frame);
            let (api, version, correlation) = (request.i16(), request.i16(), request.i32());
            let fault = self.fault_of(api, version, &frame);
            match fault {
                Some((Act::Refuse, code)) => {
                    let answer = refusal(api, version, correlation, code, request);
                    if write_frame(&mut client.lock().unwrap(), &answer).is_none() {
                        break;
                    }
                    continue;
                }
                Some((Act::CutBefore, _)) => break,
                Some((Act::Hold, _)) => {
                    let mut held = self.gate.held.lock().unwrap();
                    *held += 1;
                    drop(self.gate.opened.wait_while(held, |held| *held > 0).unwrap());
                }
                Some((Act::Deny | Act::CutAfter, _)) | None => {}
            }
            self.asked.lock().unwrap().insert(correlation, Asked { api, version, fault });
            if write_frame(&mut far, &frame).is_none() {
                break;
            }
        }
        let _ = far.shutdown(Shutdown::Both);
    }

    fn fault_of(&self, api: i16, version: i16, frame: &[u8]) -> Option<(Act, i16)> {
        let mut faults = self.faults.lock().unwrap();
        let have_others_happened = faults.iter().all(|fault| fault.times == 0 || fault.waits);
        let is_meant = |fault: &&mut Fault| {
            fault.times > 0
                && fault.api as i16 == api
                && (have_others_happened || !fault.waits)
                && (fault.topic.is_empty() || produced_topic(version, frame) == fault.topic)
        };
        let fault = faults.iter_mut().find(is_meant)?;
        fault.times -= 1;
        Some((fault.act, fault.code))
    }

    fn pass_answers(&self, mut far: TcpStream, client: &Mutex<TcpStream>) {
        while let Some(mut frame) = read_frame(&mut far) {
            let correlation = Cursor::of(&frame).i32();
            if let Some(asked) = self.asked.lock().unwrap().remove(&correlation) {
                if let Some((Act::CutAfter, _)) = asked.fault {
                    break;
                }
                frame = self.answer(&asked, frame);
            }
            if write_frame(&mut client.lock().unwrap(), &frame).is_none() {
                break;
            }
        }
        let _ = client.lock().unwrap().shutdown(Shutdown::Both);
        let _ = far.shutdown(Shutdown::Both);
    }

    /// The broker's answer, with our address for its own, and with the error that was chosen.
    fn answer(&self, asked: &Asked, frame: Vec<u8>) -> Vec<u8> {
        let is = |api: Api| asked.api == api as i16;
        let mut frame = if is(Api::Metadata) {
            self.metadata(asked.version, &frame)
        } else if is(Api::FindCoordinator) {
            self.coordinator(asked.version, &frame)
        } else {
            frame
        };
        if let Some((Act::Deny, code)) = asked.fault {
            for place in places_of_errors(asked, &frame) {
                frame[place..place + 2].copy_from_slice(&code.to_be_bytes());
            }
        }
        frame
    }

    fn metadata(&self, version: i16, frame: &[u8]) -> Vec<u8> {
        assert!(version >= 9, "Metadata {version} is not known here");
        let mut from = Cursor::of(frame);
        let mut to = Vec::new();
        to.extend(from.take(4));
        from.copy_tags(&mut to);
        // Throttle time, then the brokers.
        to.extend(from.take(4));
        let count = from.copy_length(&mut to);
        for _ in 0..count {
            to.extend(from.take(4));
            from.compact_bytes();
            from.take(4);
            self.put_address(&mut to, true);
            let rack = from.compact_bytes().map(<[u8]>::to_vec);
            put_length(&mut to, rack.as_ref().map(Vec::len));
            to.extend(rack.unwrap_or_default());
            from.copy_tags(&mut to);
        }
        to.extend(from.rest());
        to
    }

    fn coordinator(&self, version: i16, frame: &[u8]) -> Vec<u8> {
        assert!((1..=2).contains(&version), "FindCoordinator {version} is not known here");
        let mut from = Cursor::of(frame);
        let mut to = Vec::new();
        // Correlation, throttle time, error; its words; the node.
        to.extend(from.take(10));
        let words = from.i16();
        to.extend(words.to_be_bytes());
        to.extend(from.take(usize::try_from(words).unwrap_or(0)));
        let node = from.i32();
        to.extend(node.to_be_bytes());
        if node >= 0 {
            self.put_address(&mut to, false);
        } else {
            to.extend(from.rest());
        }
        to
    }

    fn put_address(&self, to: &mut Vec<u8>, is_compact: bool) {
        let host = b"127.0.0.1";
        if is_compact {
            put_length(to, Some(host.len()));
        } else {
            to.extend((host.len() as i16).to_be_bytes());
        }
        to.extend(host);
        to.extend(i32::from(self.port).to_be_bytes());
    }
}

/// Where an answer says whether it went well.
fn places_of_errors(asked: &Asked, frame: &[u8]) -> Vec<usize> {
    // After the correlation and the throttle time.
    const FIRST: usize = 8;
    let is = |api: Api| asked.api == api as i16;
    if is(Api::AddPartitionsToTxn) {
        assert_eq!(asked.version, 0, "AddPartitionsToTxn {} is not known here", asked.version);
        return places_by_partition(Cursor { frame, at: FIRST }, false);
    }
    if is(Api::TxnOffsetCommit) {
        assert_eq!(asked.version, 3, "TxnOffsetCommit {} is not known here", asked.version);
        // Its header has tags, none.
        return places_by_partition(Cursor { frame, at: FIRST + 1 }, true);
    }
    if is(Api::InitProducerId) {
        assert!((2..=4).contains(&asked.version), "InitProducerId {} is not known here", asked.version);
        return vec![FIRST + 1];
    }
    let newest = if is(Api::Heartbeat) { 3 } else { 2 };
    assert!(asked.version <= newest, "request {} {} is not known here", asked.api, asked.version);
    vec![FIRST]
}

fn places_by_partition(mut from: Cursor<'_>, is_flexible: bool) -> Vec<usize> {
    let mut places = Vec::new();
    let length = |from: &mut Cursor<'_>| {
        if is_flexible { from.length().unwrap() } else { usize::try_from(from.i32()).unwrap() }
    };
    for _ in 0..length(&mut from) {
        let name = if is_flexible { from.length().unwrap() } else { usize::try_from(from.i16()).unwrap() };
        from.take(name);
        for _ in 0..length(&mut from) {
            from.take(4);
            places.push(from.at);
            from.take(2);
            if is_flexible {
                from.copy_tags(&mut Vec::new());
            }
        }
        if is_flexible {
            from.copy_tags(&mut Vec::new());
        }
    }
    places
}

/// The answer to a request that the broker never sees.
fn refusal(api: i16, version: i16, correlation: i32, code: i16, request: Cursor<'_>) -> Vec<u8> {
    let mut answer = correlation.to_be_bytes().to_vec();
    if api != Api::Produce as i16 {
        let simple = [Api::EndTxn, Api::AddOffsetsToTxn, Api::Heartbeat];
        assert!(simple.iter().any(|known| *known as i16 == api), "no answer is known to request {api}");
        // Throttle time, error.
        answer.extend(0_i32.to_be_bytes());
        answer.extend(code.to_be_bytes());
        return answer;
    }
    let (topic, partitions) = produced(version, request);
    answer.push(0);
    put_length(&mut answer, Some(1));
    put_length(&mut answer, Some(topic.len()));
    answer.extend(topic);
    put_length(&mut answer, Some(partitions.len()));
    for partition in partitions {
        answer.extend(partition.to_be_bytes());
        answer.extend(code.to_be_bytes());
        // Base offset, append time, first offset; no errors of single records, no words, no tags.
        answer.extend([0xff; 24]);
        answer.extend([1, 0, 0]);
    }
    // The topic's tags; throttle time; tags.
    answer.extend([0; 6]);
    answer
}

/// Topic and partitions of a produce request. librdkafka sends one partition at a time.
fn produced(version: i16, mut request: Cursor<'_>) -> (Vec<u8>, Vec<i32>) {
    assert!((9..=12).contains(&version), "Produce {version} is not known here");
    let client = request.i16();
    request.take(usize::try_from(client).unwrap_or(0));
    request.copy_tags(&mut Vec::new());
    // Transactional id, acks, timeout.
    request.compact_bytes();
    request.take(6);
    assert_eq!(request.length(), Some(1), "one topic at a time");
    let topic = request.compact_bytes().unwrap().to_vec();
    let count = request.length().unwrap();
    let mut partitions = Vec::new();
    for _ in 0..count {
        partitions.push(request.i32());
        request.compact_bytes();
        request.copy_tags(&mut Vec::new());
    }
    (topic, partitions)
}

fn produced_topic(version: i16, frame: &[u8]) -> String {
    let (topic, _) = produced(version, Cursor { frame, at: 8 });
    String::from_utf8(topic).unwrap()
}

fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn write_frame(stream: &mut TcpStream, frame: &[u8]) -> Option<()> {
    let length = i32::try_from(frame.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, frame].concat()).ok()
}

/// Appends the length of what is compact: one more than it is, 0 for what is not there.
fn put_length(to: &mut Vec<u8>, length: Option<usize>) {
    let mut left = length.map_or(0, |length| length + 1);
    while left >= 0x80 {
        to.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    to.push(left as u8);
}

/// A place in a frame.
struct Cursor<'f> {
    frame: &'f [u8],
    at: usize,
}

impl<'f> Cursor<'f> {
    fn of(frame: &'f [u8]) -> Cursor<'f> {
        Cursor { frame, at: 0 }
    }

    fn take(&mut self, count: usize) -> &'f [u8] {
        let taken = &self.frame[self.at..self.at + count];
        self.at += count;
        taken
    }

    fn rest(&mut self) -> &'f [u8] {
        self.take(self.frame.len() - self.at)
    }

    fn i16(&mut self) -> i16 {
        i16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn i32(&mut self) -> i32 {
        i32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn varint(&mut self) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }

    /// The length of what is compact; `None`: it is not there.
    fn length(&mut self) -> Option<usize> {
        self.varint().checked_sub(1)
    }

    fn copy_length(&mut self, to: &mut Vec<u8>) -> usize {
        let length = self.length();
        put_length(to, length);
        length.unwrap_or(0)
    }

    fn compact_bytes(&mut self) -> Option<&'f [u8]> {
        let length = self.length()?;
        Some(self.take(length))
    }

    fn copy_tags(&mut self, to: &mut Vec<u8>) {
        let from = self.at;
        for _ in 0..self.varint() {
            self.varint();
            let length = self.varint();
            self.take(length);
        }
        to.extend(&self.frame[from..self.at]);
    }
}
