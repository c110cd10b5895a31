/**
 * The bytes of a handler journal: what one process's handlers did, kept outside Redis.
 *
 *   0 kind (1 start, 2 end) · 1 outcome (0 none, 1 done, 2 retry, 3 reject) · 2-3 attempt · 4-7 row · 8-11 key number
 *   12-15 sequence within the key · 16-23 time since 1970 by the process's monotonic clock, ms · 24-31 wall time, ms
 *   32-35 batch · 36 stream number · 37 partition · 38-39 check sum · 40-47 token as a number, NaN for counters
 *
 * One record has a fixed length, so a file that a crash cut in the middle of a record is whole up to there.
 */
export const JOURNAL_RECORD_BYTES = 48

export const KIND_START = 1
export const KIND_END = 2

export const OUTCOME_NONE = 0
export const OUTCOME_DONE = 1
export const OUTCOME_RETRY = 2
export const OUTCOME_REJECT = 3

/** Streams of the harness by their number in a journal. */
export const STREAM_NAMES = ['steps', 'echoes', 'ticks', 'turns', 'floods'] as const

export interface JournalRecord {
  readonly kind: number
  readonly outcome: number
  readonly attempt: number
  readonly row: number
  readonly key: number
  readonly sequence: number
  readonly monotonicMs: number
  readonly wallMs: number
  readonly batch: number
  readonly stream: number
  readonly partition: number
  readonly token: number
}

/** Entries of one millisecond and partition that a token has room for. */
const SEQUENCES = 2 ** 22

/** `e1732190000000-5` as a number that sorts as entry ids do; NaN for what is no entry id. */
export function tokenNumber(token: string, baseMs: number): number {
  const dash = token.indexOf('-')
  if (token[0] !== 'e' || dash < 0) return Number.NaN
  const ms = Number(token.slice(1, dash)) - baseMs
  return ms >= 0 ? ms * SEQUENCES + Number(token.slice(dash + 1)) : Number.NaN
}

/** When the entry of such a number was appended, by Redis's clock. */
export function tokenTimeMs(token: number, baseMs: number): number {
  return Math.floor(token / SEQUENCES) + baseMs
}

export function writeRecord(bytes: Buffer, at: number, record: JournalRecord): number {
  bytes[at] = record.kind
  bytes[at + 1] = record.outcome
  bytes.writeUInt16LE(record.attempt, at + 2)
  bytes.writeUInt32LE(record.row, at + 4)
  bytes.writeUInt32LE(record.key, at + 8)
  bytes.writeUInt32LE(record.sequence, at + 12)
  bytes.writeDoubleLE(record.monotonicMs, at + 16)
  bytes.writeDoubleLE(record.wallMs, at + 24)
  bytes.writeUInt32LE(record.batch, at + 32)
  bytes[at + 36] = record.stream
  bytes[at + 37] = record.partition
  bytes.writeDoubleLE(record.token, at + 40)
  bytes.writeUInt16LE(checkSum(bytes, at), at + 38)
  return at + JOURNAL_RECORD_BYTES
}

/** Undefined for a record that is damaged. */
export function readRecord(bytes: Buffer, at: number): JournalRecord | undefined {
  if (bytes.readUInt16LE(at + 38) !== checkSum(bytes, at)) return undefined
  return {
    kind: bytes[at] ?? 0,
    outcome: bytes[at + 1] ?? 0,
    attempt: bytes.readUInt16LE(at + 2),
    row: bytes.readUInt32LE(at + 4),
    key: bytes.readUInt32LE(at + 8),
    sequence: bytes.readUInt32LE(at + 12),
    monotonicMs: bytes.readDoubleLE(at + 16),
    wallMs: bytes.readDoubleLE(at + 24),
    batch: bytes.readUInt32LE(at + 32),
    stream: bytes[at + 36] ?? 0,
    partition: bytes[at + 37] ?? 0,
    token: bytes.readDoubleLE(at + 40),
  }
}

function checkSum(bytes: Buffer, at: number): number {
  let sum = 0x5eed
  for (let i = 0; i < JOURNAL_RECORD_BYTES; i += 4) {
    const word = i === 36 ? bytes.readUInt16LE(at + 36) : bytes.readUInt32LE(at + i)
    sum = (Math.imul(sum, 31) + word) | 0
  }
  return (sum ^ (sum >>> 16)) & 0xffff
}
