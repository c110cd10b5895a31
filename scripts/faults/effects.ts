/**
 * What Redis holds in the end, held against what was accepted: events by row, dead letters, and the views that the events
 * must add up to, folded here once more by other code.
 */

import { RunError } from '../fleet/failure.ts'
import type { Ledger } from '../fleet/ledger.ts'
import type { View } from '../fleet/view-check.ts'
import type { DeadLetter, LoggedEvent, Partition, RedisProbe } from './probe.ts'
import type { Workload } from './workload.ts'

export interface Effects {
  readonly events: number
  readonly done: number
  readonly dead: readonly DeadLetter[]
  readonly lostRows: readonly number[]
  /** Follow-ups of done commands that never came to their event. */
  readonly lostEchoes: number
  readonly duplicates: number
  readonly views: Map<string, Map<string, View>>
}

export interface EffectsOptions {
  readonly probe: RedisProbe
  readonly places: readonly Partition[]
  readonly ledger: Ledger
  readonly workload: Workload
}

export async function collectEffects(options: EffectsOptions): Promise<Effects> {
  const { probe, places, ledger, workload } = options
  const fold = new Fold()
  const [steps, echoes] = [new Uint8Array(workload.rows), new Uint8Array(workload.rows)]
  let [events, duplicates] = [0, 0]
  const dead: DeadLetter[] = []
  for (const place of places) {
    if (await probe.eventsTrimmed(place)) {
      throw new RunError(
        'failed',
        "Events were trimmed by retention: what was lost or doubled can't be counted.",
      )
    }
    for await (const page of probe.events(place)) {
      events += page.length
      for (const event of page) {
        fold.add(event)
        const counts = event.type === 'echo.done' ? echoes : steps
        const isOurs = event.type === 'echo.done' || isAcceptedAs(ledger, place, event)
        if (counts[event.row] !== 0 || !isOurs) duplicates += 1
        counts[event.row] = 1
      }
    }
    dead.push(...(await probe.deadLetters(place)))
  }
  const deadRows = new Set(dead.map(({ row }) => row))
  const lostRows: number[] = []
  let [done, lostEchoes] = [0, 0]
  for (let row = 0; row < workload.rows; row++) {
    if (steps[row] === 1) done += 1
    else if (ledger.isAccepted(row) && !deadRows.has(row)) lostRows.push(row)
    if (steps[row] === 1 && workload.typeOf(row) === 'step.split' && echoes[row] === 0) lostEchoes += 1
  }
  return { events, done, dead, lostRows, lostEchoes, duplicates, views: fold.views }
}

/** An event of an entry that no answer told of means that a command was stored twice. */
function isAcceptedAs(ledger: Ledger, place: Partition, event: LoggedEvent): boolean {
  const position = ledger.positionOf(event.row)
  if (position === undefined) return false
  return position.partition === place.partition && position.token === ledger.tokenNumber(event.token)
}

/** The folds of `app/steps/views.ts`, in other words. */
class Fold {
  readonly views = new Map<string, Map<string, View>>()

  add({ type, row, key }: LoggedEvent): void {
    if (type === 'echo.done') this.#add('echo-keys', `key-${key}`, row)
    else {
      this.#add('step-keys', `key-${key}`, row)
      this.#add('step-digits', `digit-${row % 16}`, row)
    }
  }

  #add(projection: string, key: string, row: number): void {
    let views = this.views.get(projection)
    if (views === undefined) {
      views = new Map()
      this.views.set(projection, views)
    }
    const before = views.get(key)
    const [count, rows] = [Number(before?.['count'] ?? 0), Number(before?.['rows'] ?? 0)]
    views.set(key, { count: count + 1, rows: rows + row })
  }
}
