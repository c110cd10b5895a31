/**
 * Commands whose order matters: one key after another's heels, and every few of them asks for another run, so that those
 * behind it have to wait. Ends with the event and the views of the other steps.
 */
import {
  defineBatchHandler,
  defineCommand,
  defineProjection,
  defineStream,
  done,
  type HandlerDefinition,
  type ProjectionDefinition,
  retry,
} from 'millrace'
import { z } from 'zod'
import { journaled, type Numbered } from '../_journal.ts'
import { stepDone } from '../steps/steps.ts'
import { add, nothing, type Sums } from '../steps/views.ts'

export const turns = defineStream({
  name: 'turns',
  partitions: 8,
  ordering: 'key',
  retention: { eventsBytesMax: 16 * 1024 ** 3 },
})

export const turn = defineCommand({
  type: 'turn.take',
  stream: turns,
  payload: z.object({ n: z.int().min(0), k: z.int().min(0), s: z.int().min(0) }),
  key: ({ k }: Numbered) => `key-${k}`,
})

/** Declared beside the other steps, and registered here as well. */
export const events: readonly unknown[] = [stepDone]

/** Every 23rd asks for another run, every 46th for two more. */
function runsNeeded(n: number): number {
  if (n % 46 === 22) return 3
  return n % 23 === 22 ? 2 : 1
}

export const onTurn: HandlerDefinition = defineBatchHandler(
  turn,
  journaled((batch) =>
    batch.map((step) => {
      const { n, k, s } = step.payload
      if (step.attempt < runsNeeded(n)) return retry('by design', { delayMs: 5 + (n % 40) })
      step.emit(stepDone, { n, k, s })
      return done()
    }),
  ),
  { batchCountMax: 200, attemptsMax: 50 },
)

export const turnKeys: ProjectionDefinition<Sums> = defineProjection<Sums>({
  name: 'step-keys',
  stream: turns,
  initial: nothing,
}).on(
  stepDone,
  ({ payload }) => `key-${payload.k}`,
  (view, { payload }) => add(view, payload.n),
)

export const turnDigits: ProjectionDefinition<Sums> = defineProjection<Sums>({
  name: 'step-digits',
  stream: turns,
  initial: nothing,
  merge: (a, b) => ({ count: a.count + b.count, rows: a.rows + b.rows }),
}).on(
  stepDone,
  ({ payload }) => `digit-${payload.n % 16}`,
  (view, { payload }) => add(view, payload.n),
)
