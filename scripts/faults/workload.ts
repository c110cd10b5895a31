/**
 * What is posted: row by row a type, a key and a sequence number, all of them functions of the row, so that nothing has
 * to be remembered and a ledger of rows tells everything.
 */
import type { Ledger } from '../fleet/ledger.ts'
import type { Body } from '../fleet/producer.ts'

export interface WorkloadOptions {
  readonly rows: number
  readonly keys: number
  readonly bodyRows: number
  readonly typeOf: (row: number) => string
  /** More members of a payload, as `,"name":value`. */
  readonly extraOf?: (row: number) => string
}

export class Workload {
  readonly rows: number
  readonly keys: number
  readonly bodyRows: number
  readonly typeOf: (row: number) => string
  readonly #extraOf: (row: number) => string

  constructor(options: WorkloadOptions) {
    this.rows = options.rows
    this.keys = options.keys
    this.bodyRows = options.bodyRows
    this.typeOf = options.typeOf
    this.#extraOf = options.extraOf ?? (() => '')
  }

  keyOf(row: number): number {
    return row % this.keys
  }

  sequenceOf(row: number): number {
    return Math.floor(row / this.keys)
  }

  payload(row: number): string {
    return `{"n":${row},"k":${this.keyOf(row)},"s":${this.sequenceOf(row)}${this.#extraOf(row)}}`
  }

  members(row: number): string {
    return `"type":"${this.typeOf(row)}","payload":${this.payload(row)}`
  }

  /** Rows `from` to before `to` that the ledger has no id for; `paced` is awaited with the row that comes next. */
  async *bodies(
    ledger: Ledger,
    {
      from,
      to,
      paced,
    }: { readonly from: number; readonly to: number; readonly paced: (row: number) => Promise<void> },
  ): AsyncGenerator<Body> {
    const members = (row: number): string => this.members(row)
    let open: number[] = []
    for (let row = from; row < to; row++) {
      if (ledger.isAccepted(row)) continue
      open.push(row)
      if (open.length < this.bodyRows) continue
      await paced(row)
      yield { rows: open, members }
      open = []
    }
    if (open.length > 0) yield { rows: open, members }
  }
}

/** The usual mix: of a hundred rows two are slow, two ask for another run, two have a follow-up. */
export function mixedType(row: number): string {
  switch (row % 50) {
    case 7:
      return 'step.slow'
    case 17:
      return 'step.retry'
    case 27:
      return 'step.split'
    default:
      return 'step.plain'
  }
}

export function plainType(): string {
  return 'step.plain'
}
