/** Every scenario, in the order in which they are played. */
import type { Scenario } from './scenario.ts'
import { coldStart } from './scenarios/cold-start.ts'
import { consumeNoop } from './scenarios/consume-noop.ts'
import { ingestBulk } from './scenarios/ingest-bulk.ts'
import { ingestSingle } from './scenarios/ingest-single.ts'
import { latency } from './scenarios/latency.ts'
import { viewRead } from './scenarios/view-read.ts'

export const SCENARIOS: readonly Scenario[] = [
  ingestSingle,
  ingestBulk,
  consumeNoop,
  viewRead,
  latency,
  coldStart,
]
