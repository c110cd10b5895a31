/** Every scenario, in the order in which they run. */
import type { Scenario } from './scenario.ts'
import { blackhole } from './scenarios/blackhole.ts'
import { kills } from './scenarios/kills.ts'
import { noFault } from './scenarios/no-fault.ts'
import { recovery } from './scenarios/recovery.ts'
import { redisKills, redisKillsEverysec } from './scenarios/redis-kills.ts'
import { replies } from './scenarios/replies.ts'
import { views } from './scenarios/views.ts'

export const SCENARIOS: readonly Scenario[] = [
  noFault,
  kills,
  recovery,
  redisKills,
  redisKillsEverysec,
  replies,
  views,
  blackhole,
]
