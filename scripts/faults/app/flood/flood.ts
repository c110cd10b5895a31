/**
 * Commands that are slow to handle but cost little: how many are settled in a second follows from how many are in flight,
 * and the processors are left to those who post. The stream's limits of admission are told by the environment.
 */
import {
  defineBatchHandler,
  defineCommand,
  defineProjection,
  defineStream,
  done,
  type HandlerDefinition,
  type ProjectionDefinition,
} from 'millrace'
import { z } from 'zod'
import { journaled, type Numbered } from '../_journal.ts'
import { stepDone } from '../steps/steps.ts'
import { add, nothing, type Sums } from '../steps/views.ts'

const HANDLE_MS = 50
const waitingCountMax = process.env['FAULTS_WAITING_COUNT_MAX']
const waitingMsMax = process.env['FAULTS_WAITING_MS_MAX']

export const floods = defineStream({
  name: 'floods',
  partitions: 4,
  retention: { eventsBytesMax: 16 * 1024 ** 3 },
  ...(waitingCountMax === undefined ? {} : { waitingCountMax: Number(waitingCountMax) }),
  ...(waitingMsMax === undefined ? {} : { waitingMsMax: Number(waitingMsMax) }),
})

export const flood = defineCommand({
  type: 'flood.step',
  stream: floods,
  payload: z.object({ n: z.int().min(0), k: z.int().min(0), s: z.int().min(0) }),
  key: ({ k }: Numbered) => `key-${k}`,
})

/** Declared beside the other steps, and registered here as well. */
export const events: readonly unknown[] = [stepDone]

export const onFlood: HandlerDefinition = defineBatchHandler(
  flood,
  journaled(async (batch) => {
    await Bun.sleep(HANDLE_MS)
    return batch.map((step) => {
      const { n, k, s } = step.payload
      step.emit(stepDone, { n, k, s })
      return done()
    })
  }),
  { batchCountMax: 20 },
)

export const floodKeys: ProjectionDefinition<Sums> = defineProjection<Sums>({
  name: 'step-keys',
  stream: floods,
  initial: nothing,
}).on(
  stepDone,
  ({ payload }) => `key-${payload.k}`,
  (view, { payload }) => add(view, payload.n),
)

export const floodDigits: ProjectionDefinition<Sums> = defineProjection<Sums>({
  name: 'step-digits',
  stream: floods,
  initial: nothing,
  merge: (a, b) => ({ count: a.count + b.count, rows: a.rows + b.rows }),
}).on(
  stepDone,
  ({ payload }) => `digit-${payload.n % 16}`,
  (view, { payload }) => add(view, payload.n),
)
