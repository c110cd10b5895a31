/** The state of an aggregate, rebuilt from its own events: as it is, or as it was at any version. */
import type { AggregateDefinition } from '../contracts/aggregate.ts'
import { readAggregateEvents } from '../redis/aggregate-store.ts'
import type { RedisLink } from '../redis/connection.ts'
import { decodeEntry, unpackPayloadOf } from '../redis/entry-codec.ts'

export interface AggregateState<State = unknown> {
  readonly state: State
  /** Number of events behind the state; 0 for an aggregate that does not exist yet. */
  readonly version: number
  /** Token of the command that the last of them came from; '' at version 0. */
  readonly token: string
}

/** Reads the events of one aggregate and evolves them, up to `lastVersion` or to the newest. */
export async function rebuildAggregate<State>(
  link: RedisLink,
  aggregate: AggregateDefinition<State>,
  key: string,
  lastVersion?: number,
): Promise<AggregateState<State>> {
  let state = aggregate.initial()
  let token = ''
  const version = await readAggregateEvents(link, key, { afterVersion: 0, lastVersion }, (event) => {
    state = evolve(aggregate, state, event.blob)
    token = event.token
  })
  return { state, version, token }
}

/** The state after one more event. Events that the aggregate does not evolve leave it as it is. */
export function evolve<State>(aggregate: AggregateDefinition<State>, state: State, blob: Buffer): State {
  const entry = decodeEntry(blob)
  const evolver = aggregate.evolvers.get(entry.type)
  return evolver === undefined ? state : evolver.evolve(state, unpackPayloadOf(entry))
}
