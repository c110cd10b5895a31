/** What held a round back, told from the processor time of its processes. */
import { rounded } from './statistics.ts'

/** From here on a process, or the machine, is taken to have been busy all the time. */
const BUSY_SHARE = 0.9

/** One sentence; `cores` by process, `machineCores` in the machine. */
export function bottleneckOf(cores: Readonly<Record<string, number>>, machineCores: number): string {
  const byUse = Object.entries(cores).sort(([, a], [, b]) => b - a)
  const all = byUse.reduce((sum, [, used]) => sum + used, 0)
  const told = byUse.map(([name, used]) => `${name} ${used.toFixed(2)}`).join(', ')
  const whole = `${rounded(all)} of ${machineCores} cores: ${told}`
  if (all >= BUSY_SHARE * machineCores) return `the machine, ${whole}`
  const [name, used] = byUse[0] ?? ['nothing', 0]
  if (used >= BUSY_SHARE) return `${name}, which kept a core busy (${whole})`
  return `waiting: no process kept a core busy (${whole})`
}
