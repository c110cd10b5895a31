/**
 * The short form of the faults: every scenario of `bun run faults`, a few seconds each, with real processes and signals. The full
 * sizes are run by hand: docs/testing.md says how.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SCENARIOS } from '../scripts/faults/catalogue.ts'
import type { FaultsResult, ScenarioResult } from '../scripts/faults/result.ts'
import { commandLines } from './support/project.ts'
import { until } from './support/until.ts'

const LIMIT_MS = 480_000
setDefaultTimeout(LIMIT_MS)

const ROOT = join(import.meta.dir, '..')
const SECONDS = 4
/** The test shares its machine; what the limits on time are is measured at full size. */
const SLACK_MS = 6000

const folder = mkdtempSync(join(tmpdir(), 'millrace-faults-test-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function start(args: readonly string[]) {
  return Bun.spawn([process.execPath, 'scripts/faults.ts', ...args], {
    cwd: ROOT,
    env: { ...process.env, TMPDIR: folder },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/** Runs some scenarios; what they said is shown when one of them broke. */
async function play(names: readonly string[]): Promise<readonly ScenarioResult[]> {
  const child = start([
    ...['--scenario', ...names, '--seconds', String(SECONDS), '--slack-ms', String(SLACK_MS), '--json', '-'],
  ])
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  if (code !== 0) console.error(err)
  return (JSON.parse(out) as FaultsResult).scenarios
}

/** These hold rates and waits against each other, which a few seconds on a shared machine can't show; they are run at full size. */
const MEASURED: ReadonlySet<string> = new Set(['overload', 'overload-age', 'tenants'])
const names = SCENARIOS.map(({ name }) => name).filter((name) => !MEASURED.has(name))

describe('a few seconds of', () => {
  const results = new Map<string, ScenarioResult>()

  // Two at a time: most of a scenario is waiting.
  beforeAll(async () => {
    const lanes = [names.filter((_, i) => i % 2 === 0), names.filter((_, i) => i % 2 === 1)]
    for (const result of (await Promise.all(lanes.map(play))).flat()) results.set(result.name, result)
  })

  test.each(names)('%s', (name) => {
    const result = results.get(name)
    expect(result).toBeDefined()
    expect(result?.broken).toEqual([])
    if (result?.pass === null) {
      expect(result.skipped.length).toBeGreaterThan(0)
      return
    }
    expect(result).toMatchObject({ pass: true, duplicateEffects: 0, pending: 0, innocentDead: 0 })
    expect(result?.handlerCalls).toBeGreaterThan(0)
  })
})

test('Ctrl-C ends everything that was started', async () => {
  const child = start(['--scenario', 'kills', '--seconds', '60'])
  const reader = child.stderr.getReader()
  let said = ''
  while (!/[1-9][\d,]* of .* accepted/.test(said)) {
    const { value, done } = await reader.read()
    if (done) break
    said += new TextDecoder().decode(value)
  }
  child.kill('SIGINT')
  void (async () => {
    while (!(await reader.read()).done) {
      // So that it is never held up by a full pipe.
    }
  })()
  expect(await child.exited).toBe(130)
  const pattern = new RegExp(`${folder}/millrace-faults-`)
  await until(
    'nothing to be left behind',
    () => !commandLines().some(({ words }) => words.some((word) => pattern.test(word))),
  )
  expect(readdirSync(folder).filter((name) => name.startsWith('millrace-faults-'))).toEqual([])
})
