/** Kills and pauses of processes that are no workers: spread over a while in an order drawn from the seed. */
import type { Role, RoleProcess } from '../fleet/role-process.ts'
import type { Arena } from './arena.ts'
import type { Random } from './random.ts'

const PAUSE_MAX_MS = 5000

/** As many of each as the size says; `replace` starts another one for one that was killed. */
export async function strikeRole(
  arena: Arena,
  role: Role,
  replace: (victim: RoleProcess) => Promise<unknown>,
  seconds: number = arena.size.seconds,
): Promise<void> {
  const { size, fleet, signal } = arena
  const random = arena.random.fork(role)
  const order = shuffled(random, [
    ...Array.from({ length: size.workerKills }, () => 'kill' as const),
    ...Array.from({ length: size.pauses }, () => 'pause' as const),
  ])
  const everyMs = (seconds * 1000) / (order.length + 1)
  const resumes: Promise<void>[] = []
  for (const kind of order) {
    signal.throwIfAborted()
    await Bun.sleep(everyMs * random.between(0.5, 1))
    const alive = fleet.ofRole(role)
    const victim = alive[Math.floor(random.next() * alive.length)]
    if (victim === undefined) continue
    if (kind === 'kill') {
      await victim.kill()
      arena.extraKills += 1
      await replace(victim)
      continue
    }
    victim.signal('SIGSTOP')
    arena.extraPauses += 1
    const pauseMs = random.between(0, Math.min(PAUSE_MAX_MS, seconds * 300))
    resumes.push(Bun.sleep(pauseMs).then(() => (victim.alive ? victim.signal('SIGCONT') : undefined)))
  }
  await Promise.all(resumes)
}

function shuffled<Value>(random: Random, values: readonly Value[]): Value[] {
  return values
    .map((value) => ({ value, place: random.next() }))
    .sort((a, b) => a.place - b.place)
    .map(({ value }) => value)
}
