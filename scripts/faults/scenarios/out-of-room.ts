/**
 * Redis has no memory left, or its disk is full. Producers are refused with 503, what was accepted stays, and everything goes
 * on by itself once there is room again. Without memory the workers go on settling until nothing is left to do.
 */
import { closeSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Arena } from '../arena.ts'
import { judge } from '../judge.ts'
import type { Scenario } from '../scenario.ts'
import { deathsPronounced } from '../verdicts.ts'
import { mixedType, Workload } from '../workload.ts'

const MEBIBYTE = 1024 ** 2
const REFUSED_LIMIT_MS = 30_000
const DRAINED_LIMIT_MS = 30_000
const ACCEPTED_AGAIN_LIMIT_MS = 15_000
const DISK_MEBIBYTES = 96

export const oom: Scenario = {
  name: 'oom',
  promise: 'Redis out of memory: 503 at the door, workers drain, all goes on without a restart',
  full: { commands: 60_000, seconds: 30, workerKills: 0, pauses: 0, redisKills: 0, rounds: 3 },
  async run(arena) {
    await opened(arena, undefined)
    const { probe } = arena
    const load = arena.produce()
    for (let round = 0; round < arena.size.rounds; round++) {
      await arena.guard(Bun.sleep((arena.size.seconds * 500) / arena.size.rounds))
      const used = Number((await probe.info('memory')).get('used_memory'))
      // The first time the door closes by itself, before memory is out; then Redis has none at all.
      const limit = round === 0 ? used + MEBIBYTE : used - MEBIBYTE
      await probe.send('CONFIG', ['SET', 'maxmemory', String(limit)])
      await refusedBefore(arena)
      arena.check(await arena.guard(drained(arena)), 'workers did not drain while memory was out')
      await probe.send('CONFIG', ['SET', 'maxmemory', '0'])
      await acceptedAgain(arena)
    }
    await load
    await arena.quiet()
    judge(arena, await arena.count())
    arena.details['deathsPronounced'] = deathsPronounced(arena.fleet).consumers
  },
}

export const diskFull: Scenario = {
  name: 'disk-full',
  promise: 'the disk of Redis full: 503 at the door, nothing lost, all goes on without a restart',
  full: { commands: 60_000, seconds: 30, workerKills: 0, pauses: 0, redisKills: 0, rounds: 3 },
  skip: async () => {
    if (process.getuid?.() !== 0) return 'a small file system can only be mounted by root'
    return Bun.which('mount') === null ? 'there is no mount' : undefined
  },
  async run(arena) {
    const disk = join(arena.folder, 'disk')
    mkdirSync(disk)
    const mounted = Bun.spawnSync(['mount', '-t', 'tmpfs', '-o', `size=${DISK_MEBIBYTES}m`, 'tmpfs', disk])
    if (!mounted.success) {
      arena.skipped.push(`disk-full: a tmpfs can't be mounted here (${mounted.stderr.toString().trim()})`)
      return
    }
    arena.onClose(async () => {
      await arena.redis.end()
      Bun.spawnSync(['umount', disk])
    })
    await opened(arena, disk)
    const load = arena.produce()
    for (let round = 0; round < arena.size.rounds; round++) {
      await arena.guard(Bun.sleep((arena.size.seconds * 500) / arena.size.rounds))
      const filler = join(disk, 'filler')
      fill(filler)
      await refusedBefore(arena)
      await arena.guard(Bun.sleep(1000))
      rmSync(filler)
      await acceptedAgain(arena)
    }
    await load
    await arena.quiet()
    judge(arena, await arena.count())
    arena.details['deathsPronounced'] = deathsPronounced(arena.fleet).consumers
  },
}

async function opened(arena: Arena, redisFolder: string | undefined): Promise<void> {
  const workload = new Workload({ rows: arena.size.commands, keys: 1000, bodyRows: 25, typeOf: mixedType })
  const redis = redisFolder === undefined ? {} : { redis: { folder: join(redisFolder, 'redis') } }
  await arena.open({ workload, workers: 2, ...redis })
}

/** Until producers are refused, with the status that says so. */
async function refusedBefore(arena: Arena): Promise<void> {
  const before = arena.refused
  const isRefused = await arena.guard(arena.until(() => arena.refused > before, REFUSED_LIMIT_MS))
  arena.check(isRefused, 'nobody was refused although there was no room: nothing was tested')
  const command = '{"type":"step.plain","payload":{"n":0,"k":0,"s":0}}'
  const [answer] = await arena.post([command])
  arena.check(answer?.status === 503, `a command without room got ${answer?.status}, not 503`)
}

async function acceptedAgain(arena: Arena): Promise<void> {
  const before = arena.ledger.acceptedCount
  const isOpen = await arena.guard(
    arena.until(() => arena.ledger.acceptedCount > before, ACCEPTED_AGAIN_LIMIT_MS),
  )
  arena.check(
    isOpen,
    `nothing was accepted within ${ACCEPTED_AGAIN_LIMIT_MS / 1000} s after there was room again`,
  )
}

async function drained(arena: Arena): Promise<boolean> {
  return await arena.until(async () => {
    const { undelivered, pending, due } = await arena.probe.openWork(arena.places)
    return undelivered + pending + due === 0
  }, DRAINED_LIMIT_MS)
}

/** Writes until there is no room. */
function fill(path: string): void {
  const file = openSync(path, 'w')
  const page = Buffer.alloc(MEBIBYTE)
  for (let size = page.length; size >= 1; ) {
    try {
      if (writeSync(file, page, 0, size) < size) size = Math.floor(size / 2)
    } catch {
      size = Math.floor(size / 2)
    }
  }
  closeSync(file)
}
