/** A newer version of the application: everything that the old one has, and one command that the old one does not know. */
import { defineBatchHandler, defineCommand, done, type HandlerDefinition } from 'millrace'
import { z } from 'zod'
import { journaled, type Numbered } from '../_journal.ts'
import * as old from '../steps/steps.ts'
import * as oldViews from '../steps/views.ts'

export const known: readonly unknown[] = [...Object.values(old), ...Object.values(oldViews)]

export const freshStep = defineCommand({
  type: 'step.fresh',
  stream: old.steps,
  payload: z.object({ n: z.int().min(0), k: z.int().min(0), s: z.int().min(0) }),
  key: ({ k }: Numbered) => `key-${k}`,
})

export const onFresh: HandlerDefinition = defineBatchHandler(
  freshStep,
  journaled((batch) =>
    batch.map((step) => {
      const { n, k, s } = step.payload
      step.emit(old.stepDone, { n, k, s })
      return done()
    }),
  ),
  { batchCountMax: 100 },
)
