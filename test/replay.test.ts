/**
 * The replay as a person runs it: real processes, real records, every view compared; then the same with a worker killed,
 * and with everything killed.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { commandLine } from '../scripts/fleet/command-line.ts'
import type { ReplayResult } from '../scripts/replay/replay.ts'
import { startMillrace } from '../src/index.ts'
import { until } from './support/until.ts'

setDefaultTimeout(120_000)

const ROOT = join(import.meta.dir, '..')
const folder = mkdtempSync(join(tmpdir(), 'millrace-replay-test-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function start(args: readonly string[], environment: Record<string, string> = {}) {
  return Bun.spawn([process.execPath, 'scripts/replay.ts', ...args], {
    cwd: ROOT,
    env: { ...process.env, TMPDIR: folder, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

async function replay(
  args: readonly string[],
  environment: Record<string, string> = {},
): Promise<{ code: number; out: string; err: string }> {
  const child = start(args, environment)
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  return { code, out, err }
}

function resultOf({ out, err }: { out: string; err: string }): ReplayResult {
  expect(err).toContain('views compared')
  return JSON.parse(out) as ReplayResult
}

const LEFT_BEHIND = /millrace-replay-(?!test-)/
const EQUAL = { equal: true, viewsDifferent: 0, lost: 0, duplicated: 0 }

describe('20 000 records', () => {
  test('come out as the reference says', async () => {
    const run = await replay(['--limit', '20000', '--verify', '--workers', '2', '--json', '-'])
    const result = resultOf(run)
    expect(result).toMatchObject({ ...EQUAL, records: 20_000, accepted: 20_000, kills: 0, redeliveries: 0 })
    expect(result.viewsCompared).toBeGreaterThan(1000)
    expect(run.code).toBe(0)
    expect(readdirSync(folder).filter((name) => LEFT_BEHIND.test(name))).toEqual([])
  })

  test('come out the same when a worker is killed while it holds commands', async () => {
    const often = ['--kill-every-ms', '60000', '--rate', '6000']
    const run = await replay(['--limit', '20000', '--verify', '--workers', '2', '--json', '-', ...often])
    const result = resultOf(run)
    expect(result).toMatchObject({ ...EQUAL, accepted: 20_000, kills: 1 })
    expect(result.orphaned).toBeGreaterThan(0)
    expect(result.redeliveries).toBeGreaterThan(0)
    expect(run.code).toBe(0)
  })

  test('come out the same when everything is killed, Redis too, and the replay goes on', async () => {
    const place = join(folder, 'resumed')
    const args = [
      '--limit',
      '20000',
      '--verify',
      '--workers',
      '2',
      '--durability',
      'fsync',
      '--resume',
      place,
    ]
    const first = start([...args, '--rate', '4000'])
    const ledger = join(place, 'ledger')
    await until(
      'a part of the records to be in',
      () => (statSync(ledger, { throwIfNoEntry: false })?.size ?? 0) > 16 * 5000,
      60_000,
    )
    first.kill('SIGKILL')
    await first.exited
    for (const pid of stackProcesses(place)) process.kill(pid, 'SIGKILL')
    await until('everything to be dead', () => stackProcesses(place).length === 0)
    const run = await replay([...args, '--json', '-'])
    const result = resultOf(run)
    expect(result).toMatchObject({ ...EQUAL, accepted: 20_000, resumed: true, durability: 'fsync' })
    expect(run.code).toBe(0)
    expect(existsSync(ledger)).toBe(true)
  })
})

/** Every process that works in this data folder, its redis-server included. */
function stackProcesses(place: string): number[] {
  const pids = existsSync('/proc/self')
    ? readdirSync('/proc').filter((name) => /^\d+$/.test(name))
    : Bun.spawnSync(['ps', '-axo', 'pid=']).stdout.toString().trim().split(/\s+/)
  return pids.map(Number).filter((pid) => {
    const command = commandLine(pid)
    return command.includes(`--data-dir ${place}`) || command.includes(`${place}/redis/`)
  })
}

describe('a mistake is one sentence and an exit code', () => {
  test.each([
    [['--verfy'], 2, "unknown option '--verfy'"],
    [['--target', 'http://127.0.0.1:1', '--kill-every-ms', '100'], 2, '--kill-every-ms is for a stack'],
    [['--limit', 'many'], 2, 'whole number'],
    [['--target', 'nonsense'], 2, 'not an http://'],
    [['--target', 'http://127.0.0.1:1', '--limit', '10'], 69, 'nothing listens there'],
  ])('%j', async (args, code, sentence) => {
    const run = await replay(args as string[])
    expect(run.err).toContain(sentence as string)
    expect(
      run.err
        .trim()
        .split('\n')
        .filter((line) => line.startsWith('replay: ')).length,
    ).toBe(1)
    expect(run.code).toBe(code as number)
    expect(run.out).toBe('')
  })

  test('a redis-server that is not there', async () => {
    const run = await replay(['--limit', '10'], { MILLRACE_REDIS_SERVER: join(folder, 'no-redis') })
    expect(run.code).toBe(78)
    expect(run.err).toContain('There is no program')
  })
})

test('an API that runs already is replayed into, once', async () => {
  await using millrace = await startMillrace({
    dataFolder: join(folder, 'target'),
    workersFolder: join(ROOT, 'workers/flights'),
    port: 0,
    adminPort: 0,
  })
  const args = ['--limit', '3000', '--verify', '--json', '-', '--target', millrace.urls.public ?? '']
  const first = await replay(args)
  expect(resultOf(first)).toMatchObject({
    equal: true,
    accepted: 3000,
    viewsDifferent: 0,
    lost: null,
    workers: null,
  })
  expect(first.code).toBe(0)
  const second = await replay(args)
  expect(second.code).toBe(2)
  expect(second.err).toContain('3,000 flights already')
})

test('Ctrl-C ends everything that was started', async () => {
  const place = join(folder, 'interrupted')
  const child = start(['--limit', '20000', '--rate', '1000', '--resume', place])
  await until(
    'records to flow',
    () => (statSync(join(place, 'ledger'), { throwIfNoEntry: false })?.size ?? 0) > 0,
    60_000,
  )
  child.kill('SIGINT')
  expect(await child.exited).toBe(130)
  expect(stackProcesses(place)).toEqual([])
})
