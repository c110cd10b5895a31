/** Every scenario, in the order in which they are played. */
import type { Scenario } from './scenario.ts'
import { coldStart } from './scenarios/cold-start.ts'
import { consumeNoop } from './scenarios/consume-noop.ts'

export const SCENARIOS: readonly Scenario[] = [consumeNoop, coldStart]
