#!/usr/bin/env bun
/**
 * `bun run mutants`: breaks one mechanism at a time in a copy of the tree, and shows which test notices. Fails when one goes
 * unnoticed, when a mutant no longer fits the code, or when a test that should notice was red before.
 */
import { join } from 'node:path'
import { MUTANTS } from './mutants/catalogue.ts'
import type { Mutant } from './mutants/mutant.ts'
import { parseOptions, UsageError } from './mutants/options.ts'
import { TestRunner } from './mutants/test-runner.ts'
import { TreeCopy } from './mutants/tree-copy.ts'
import { Trial, type TrialResult } from './mutants/trial.ts'

const ROOT = join(import.meta.dir, '..')

function tell(line: string): void {
  process.stderr.write(`${line}\n`)
}

function row({ name, promise, verdict, guard, said, tries, seconds }: TrialResult): string {
  const where =
    guard === undefined ? '' : `${guard.file.replace(/^test\//, '')} › ${guard.test}\n${' '.repeat(10)}`
  const again = tries > 1 ? ` (${tries} tries)` : ''
  return `${verdict.padEnd(9)} ${name}  ${promise}  ${seconds.toFixed(1)} s${again}\n${' '.repeat(10)}${where}${said}`
}

/** Also on the way out by a signal: nothing that was started or copied stays behind. */
function endOnSignals(runner: TestRunner, copy: TreeCopy): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      runner.end()
      copy.remove()
      process.exit(130)
    })
  }
}

interface MutantRun {
  readonly pass: boolean
  readonly seconds: number
  /** Guards that were red before anything was broken; then no mutant was tried. */
  readonly redBefore: readonly string[]
  readonly mutants: readonly TrialResult[]
}

async function runMutants(chosen: readonly Mutant[]): Promise<MutantRun> {
  const startedNs = Bun.nanoseconds()
  const secondsSoFar = (): number => (Bun.nanoseconds() - startedNs) / 1e9
  const copy = new TreeCopy(ROOT)
  const runner = new TestRunner(copy)
  endOnSignals(runner, copy)
  try {
    await copy.fill()
    const trial = new Trial(copy, runner)
    const redBefore = await trial.baseline(chosen)
    if (redBefore.length > 0) {
      tell(`The guards must be green before anything is broken:\n${redBefore.join('\n')}`)
      return { pass: false, seconds: secondsSoFar(), redBefore, mutants: [] }
    }
    tell(`green before anything is broken, ${secondsSoFar().toFixed(1)} s\n`)
    const results: TrialResult[] = []
    for (const mutant of chosen) {
      const result = await trial.judge(mutant)
      tell(row(result))
      results.push(result)
    }
    const failed = results.filter(({ verdict }) => verdict !== 'killed')
    const names = failed.map(({ name, verdict }) => `${name} (${verdict})`).join(', ')
    const seconds = secondsSoFar()
    tell(`\n${results.length - failed.length} of ${results.length} mutants killed, ${seconds.toFixed(0)} s`)
    if (failed.length > 0) tell(`not killed: ${names}`)
    return { pass: failed.length === 0, seconds, redBefore, mutants: results }
  } finally {
    runner.end()
    copy.remove()
  }
}

async function main(): Promise<number> {
  const { chosen, list, json } = parseOptions(process.argv.slice(2), MUTANTS)
  if (list) {
    for (const { name, promise, breaks } of chosen)
      console.log(`${name.padEnd(26)} ${promise.padEnd(4)} ${breaks}`)
    return 0
  }
  const result = await runMutants(chosen)
  const text = `${JSON.stringify(result, undefined, 2)}\n`
  if (json === '-') await Bun.write(Bun.stdout, text)
  else if (json !== undefined) await Bun.write(json, text)
  return result.pass ? 0 : 1
}

process.exit(
  await main().catch((error: unknown) => {
    if (!(error instanceof UsageError)) throw error
    tell(error.message)
    return 2
  }),
)
