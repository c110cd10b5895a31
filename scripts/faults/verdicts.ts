/** What workers said about each other, from their logs: who was pronounced dead, and what alarms were raised. */
import type { Fleet } from './fleet.ts'

/** Looks of several observers at the same death are one. */
const SAME_DEATH_MS = 5000

/** How many deaths were pronounced: a consumer that was silent twice counts twice, however many noticed. */
export function deathsPronounced(fleet: Fleet): { readonly consumers: number; readonly takeovers: number } {
  const lines = fleet.logLines('"consumer.pronounced-dead"', 'work-')
  const times = new Map<string, number[]>()
  for (const line of lines) {
    const consumer = String(line['consumer'])
    const list = times.get(consumer) ?? []
    list.push(Date.parse(String(line['time'])))
    times.set(consumer, list)
  }
  let takeovers = 0
  for (const list of times.values()) {
    let lastMs = Number.NEGATIVE_INFINITY
    for (const atMs of list.sort((a, b) => a - b)) {
      if (atMs - lastMs > SAME_DEATH_MS) takeovers += 1
      lastMs = atMs
    }
  }
  return { consumers: times.size, takeovers }
}

/** Alarms by name. */
export function alarmsRaised(fleet: Fleet): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const line of fleet.logLines('"alarm.raised"')) {
    const alarm = String(line['alarm'])
    counts[alarm] = (counts[alarm] ?? 0) + 1
  }
  return counts
}
