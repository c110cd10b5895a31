/** Every scenario, in the order in which they are played. */
import type { Scenario } from './scenario.ts'
import { aggregateView } from './scenarios/aggregate-view.ts'
import { backlog } from './scenarios/backlog.ts'
import { coldStart } from './scenarios/cold-start.ts'
import { consumeEmit } from './scenarios/consume-emit.ts'
import { consumeNoop } from './scenarios/consume-noop.ts'
import { consumeOrdered } from './scenarios/consume-ordered.ts'
import { endToEnd } from './scenarios/end-to-end.ts'
import { ingestBulk } from './scenarios/ingest-bulk.ts'
import { ingestClient } from './scenarios/ingest-client.ts'
import { ingestSingle } from './scenarios/ingest-single.ts'
import { latency } from './scenarios/latency.ts'
import { memory } from './scenarios/memory.ts'
import { scaleOut } from './scenarios/scale-out.ts'
import { viewRead } from './scenarios/view-read.ts'
import { vsBullmq } from './scenarios/vs-bullmq.ts'

export const SCENARIOS: readonly Scenario[] = [
  ingestSingle,
  ingestBulk,
  ingestClient,
  consumeNoop,
  consumeEmit,
  consumeOrdered,
  aggregateView,
  endToEnd,
  viewRead,
  scaleOut,
  backlog,
  memory,
  latency,
  coldStart,
  vsBullmq,
]
