/** Every scenario, in the order in which they run. */
import type { Scenario } from './scenario.ts'
import { kills } from './scenarios/kills.ts'
import { noFault } from './scenarios/no-fault.ts'
import { recovery } from './scenarios/recovery.ts'

export const SCENARIOS: readonly Scenario[] = [noFault, kills, recovery]
