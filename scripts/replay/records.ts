/**
 * The three million flight records of `vega-datasets`, one row group after the other.
 *
 * A row group stays in columns: 270 000 rows are five arrays, not 270 000 objects, and a line of a request body is joined
 * straight from them. The row's number is its name: the same in every run, whatever was sent before.
 */
import { join } from 'node:path'
import { type AsyncBuffer, parquetMetadataAsync, parquetRead } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import { RunError } from '../fleet/failure.ts'

const RECORDS_FILE: string = join(import.meta.dir, '../../node_modules/vega-datasets/data/flights-3m.parquet')

/** Opens the file for hyparquet, which asks for byte ranges. */
export async function openRecords(): Promise<AsyncBuffer> {
  const file = Bun.file(RECORDS_FILE)
  if (!(await file.exists())) {
    throw new RunError(
      'unavailable',
      'The flight records are missing: run `bun install`, they ship in the development package vega-datasets.',
    )
  }
  return {
    byteLength: file.size,
    slice: (start, end) => file.slice(start, end ?? file.size).arrayBuffer(),
  }
}

export async function countRecords(): Promise<number> {
  const metadata = await parquetMetadataAsync(await openRecords())
  return Number(metadata.num_rows)
}

/** Some rows in columns; index 0 is row `firstRow` of the file. */
export class RecordTable {
  readonly firstRow: number
  readonly count: number
  readonly #minutes: ArrayLike<string>
  readonly #delays: ArrayLike<bigint>
  readonly #distances: ArrayLike<bigint>
  readonly #origins: ArrayLike<string>
  readonly #destinations: ArrayLike<string>

  constructor(firstRow: number, count: number, columns: ReadonlyMap<string, ArrayLike<unknown>>) {
    this.firstRow = firstRow
    this.count = count
    this.#minutes = column(columns, 'date')
    this.#delays = column(columns, 'delay')
    this.#distances = column(columns, 'distance')
    this.#origins = column(columns, 'origin')
    this.#destinations = column(columns, 'destination')
  }

  /** The payload of `flight.record`, as JSON. No value in the file needs escaping. */
  payload(row: number): string {
    const at = row - this.firstRow
    return `{"date":"${this.#minutes[at]}","delay":${this.#delays[at]},"distance":${this.#distances[at]},"origin":"${this.#origins[at]}","destination":"${this.#destinations[at]}"}`
  }
}

function column<Value>(columns: ReadonlyMap<string, ArrayLike<unknown>>, name: string): ArrayLike<Value> {
  const found = columns.get(name)
  if (found === undefined) throw new RunError('failed', `The flight records have no column "${name}".`)
  return found as ArrayLike<Value>
}

/** Rows 0 to `limitRows`, a row group at a time. */
export async function* recordTables(limitRows: number): AsyncGenerator<RecordTable> {
  const file = await openRecords()
  const metadata = await parquetMetadataAsync(file)
  const parsers = { timestampFromMicroseconds: minuteParser() }
  let firstRow = 0
  for (const group of metadata.row_groups) {
    const rowEnd = firstRow + Number(group.num_rows)
    if (firstRow >= limitRows) return
    const columns = new Map<string, ArrayLike<unknown>>()
    await parquetRead({
      file,
      metadata,
      compressors,
      parsers,
      rowStart: firstRow,
      rowEnd,
      onChunk: ({ columnName, columnData, rowStart }) => {
        if (rowStart !== firstRow || columns.has(columnName)) {
          throw new RunError('failed', 'The flight records are not laid out in whole row groups.')
        }
        columns.set(columnName, columnData)
      },
    })
    yield new RecordTable(firstRow, Math.min(rowEnd, limitRows) - firstRow, columns)
    firstRow = rowEnd
  }
}

/** Microseconds to `2001-01-31T17:05`. Rows come in the order of time, so most repeat the minute before them. */
function minuteParser(): (micros: bigint) => string {
  let known = -1n
  let text = ''
  return (micros) => {
    if (micros === known) return text
    known = micros
    text = new Date(Number(micros / 1000n)).toISOString().slice(0, 16)
    return text
  }
}
