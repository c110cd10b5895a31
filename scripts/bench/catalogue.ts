/** Every scenario, in the order in which they are played. */
import type { Scenario } from './scenario.ts'
import { consumeNoop } from './scenarios/consume-noop.ts'
import { ingestClient } from './scenarios/ingest-client.ts'
import { vsBullmq } from './scenarios/vs-bullmq.ts'

export const SCENARIOS: readonly Scenario[] = [ingestClient, consumeNoop, vsBullmq]
