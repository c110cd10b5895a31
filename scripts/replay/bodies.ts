/** The records as bodies to post: a row keeps its place in the file as its number, and the file is read a row group at a time. */
import type { Ledger } from '../fleet/ledger.ts'
import type { Body } from '../fleet/producer.ts'
import { recordTables } from './records.ts'

/** Rows 0 to `rows` that the ledger has no id for, at most `bodyRows` in one body. */
export async function* recordBodies(ledger: Ledger, rows: number, bodyRows: number): AsyncGenerator<Body> {
  for await (const table of recordTables(rows)) {
    const members = (row: number): string => `"type":"flight.record","payload":${table.payload(row)}`
    let open: number[] = []
    for (let row = table.firstRow; row < table.firstRow + table.count; row++) {
      if (ledger.isAccepted(row)) continue
      open.push(row)
      if (open.length < bodyRows) continue
      yield { rows: open, members }
      open = []
    }
    if (open.length > 0) yield { rows: open, members }
  }
}
