/**
 * What was accepted, kept outside Redis: which rows have a command id, and which.
 *
 * On disk it is a log of 16-byte records, appended when an answer arrives and flushed every second:
 *
 *   0-3 row · 4-5 partition · 6-7 check sum · 8-15 token as a number
 *
 * A record that was torn or lost by a crash is a row that is posted again with the same idempotency key, and gets the
 * same id. In memory it is ten bytes a row.
 */
import { closeSync, fdatasync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import { RunError } from './failure.ts'

const RECORD_BYTES = 16
/** Entries per millisecond and partition that a token has room for; 2^53 divided by it is 24 days of milliseconds. */
const SEQUENCES = 2 ** 22
const READ_RECORDS = 4096

const syncData = promisify(fdatasync)

export class Ledger {
  readonly #file: number
  /** Before the first entry id of this run, ms since 1970. */
  readonly #baseMs: number
  /** Partition + 1 by row; 0 while the row is not accepted. */
  readonly #partitions: Uint16Array
  readonly #tokens: Float64Array
  #accepted = 0
  #unflushed = false

  constructor(path: string, rows: number, baseMs: number) {
    this.#baseMs = baseMs
    this.#partitions = new Uint16Array(rows)
    this.#tokens = new Float64Array(rows)
    this.#file = openSync(path, 'a+', 0o600)
    this.#load()
  }

  get acceptedCount(): number {
    return this.#accepted
  }

  isAccepted(row: number): boolean {
    return this.#partitions[row] !== 0
  }

  /** Where the command of a row stands; undefined while it is not accepted. */
  positionOf(row: number): { readonly partition: number; readonly token: number } | undefined {
    if (!this.isAccepted(row)) return undefined
    return { partition: (this.#partitions[row] ?? 0) - 1, token: this.#tokens[row] ?? 0 }
  }

  /** Notes the ids that one answer gave. `rows` and `ids` stand side by side. */
  accept(rows: readonly number[], ids: readonly string[]): void {
    const bytes = Buffer.allocUnsafe(rows.length * RECORD_BYTES)
    let length = 0
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i] ?? 0
      const { partition, token } = this.#position(ids[i] ?? '')
      if (!this.#put(row, partition, token)) continue
      length = writeRecord(bytes, length, row, partition, token)
    }
    if (length === 0) return
    writeSync(this.#file, bytes, 0, length)
    this.#unflushed = true
  }

  /** Until the disk has what was noted before. */
  async flush(): Promise<void> {
    if (!this.#unflushed) return
    this.#unflushed = false
    await syncData(this.#file)
  }

  close(): void {
    closeSync(this.#file)
  }

  /** The tokens of one partition as numbers, in ascending order. */
  sortedTokens(partition: number): Float64Array {
    const tokens = new Float64Array(
      this.#partitions.reduce((sum, each) => sum + (each === partition + 1 ? 1 : 0), 0),
    )
    let length = 0
    for (let row = 0; row < this.#partitions.length; row++) {
      if (this.#partitions[row] === partition + 1) tokens[length++] = this.#tokens[row] ?? 0
    }
    return tokens.sort()
  }

  /** Partitions that any accepted row is in. */
  partitions(): number[] {
    return [...new Set(this.#partitions)].filter((each) => each > 0).map((each) => each - 1)
  }

  /** `e1732190000000-5` as a number that sorts as entry ids do. NaN for anything that this run can't have caused. */
  tokenNumber(token: string): number {
    const dash = token.indexOf('-')
    if (token[0] !== 'e' || dash < 0) return Number.NaN
    const ms = Number(token.slice(1, dash)) - this.#baseMs
    const sequence = Number(token.slice(dash + 1))
    if (!(ms >= 0) || !(sequence < SEQUENCES)) return Number.NaN
    return ms * SEQUENCES + sequence
  }

  /** `flights.1.e1732190000000-5.CHECKSUM…` → where it stands. */
  #position(id: string): { partition: number; token: number } {
    const [, partition = '', text = ''] = id.split('.', 3)
    const token = this.tokenNumber(text)
    if (!/^\d{1,3}$/.test(partition) || Number.isNaN(token)) {
      throw new RunError('failed', `The API answered with a command id that this replay can't read: "${id}".`)
    }
    return { partition: Number(partition), token }
  }

  /** False when the row was known; a row that comes back under another id is a broken promise. */
  #put(row: number, partition: number, token: number): boolean {
    if (this.isAccepted(row)) {
      if (this.#tokens[row] === token && this.#partitions[row] === partition + 1) return false
      throw new RunError(
        'failed',
        `Row ${row} was accepted twice, under two command ids: its idempotency key failed.`,
      )
    }
    this.#partitions[row] = partition + 1
    this.#tokens[row] = token
    this.#accepted += 1
    return true
  }

  /** Reads what an earlier run noted; a torn or damaged end is cut off. */
  #load(): void {
    const page = Buffer.allocUnsafe(READ_RECORDS * RECORD_BYTES)
    const size = fstatSync(this.#file).size
    let good = 0
    while (good + RECORD_BYTES <= size) {
      const length = readSync(this.#file, page, 0, page.length, good)
      const before = good
      for (let at = 0; at + RECORD_BYTES <= length; at += RECORD_BYTES) {
        const row = page.readUInt32LE(at)
        if (checkSum(page, at) !== page.readUInt16LE(at + 6) || row >= this.#partitions.length) break
        this.#put(row, page.readUInt16LE(at + 4), page.readDoubleLE(at + 8))
        good += RECORD_BYTES
      }
      if (good - before < Math.floor(length / RECORD_BYTES) * RECORD_BYTES || length === 0) break
    }
    if (good < size) ftruncateSync(this.#file, good)
  }
}

function writeRecord(bytes: Buffer, at: number, row: number, partition: number, token: number): number {
  bytes.writeUInt32LE(row, at)
  bytes.writeUInt16LE(partition, at + 4)
  bytes.writeDoubleLE(token, at + 8)
  bytes.writeUInt16LE(checkSum(bytes, at), at + 6)
  return at + RECORD_BYTES
}

/** Over everything but itself, and never 0 for a record of zeros (a hole in the file). */
function checkSum(bytes: Buffer, at: number): number {
  let sum = 0x5eed
  for (const each of [0, 2, 4, 8, 10, 12, 14]) {
    sum = (Math.imul(sum, 31) + bytes.readUInt16LE(at + each)) & 0xffff
  }
  return sum
}
