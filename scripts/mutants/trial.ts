/**
 * The trial of mutants, one at a time: first the tree as it is must pass every test that is going to be used, then each
 * mutant is planted in the copy and its guards run until one of them turns red.
 *
 *   killed    a guard failed by an assertion or a wait in vain
 *   survived  every guard stayed green: a test is missing
 *   crashed   a guard failed by something that it did not mean, such as a syntax error: nothing is proved
 *   stale     a search text is not there exactly once: the code has moved, the mutant must follow
 */
import { type Guard, type Mutant, mutate } from './mutant.ts'
import type { TestRun } from './test-runner.ts'

/** Where mutants are planted. */
export interface Ground {
  read(file: string): Promise<string>
  change(texts: ReadonlyMap<string, string>): Promise<void>
  mend(): Promise<void>
}

export interface GuardRunner {
  run(file: string, tests: readonly string[]): Promise<TestRun>
}

export type Verdict = 'killed' | 'survived' | 'crashed' | 'stale'

export interface TrialResult {
  readonly name: string
  readonly promise: string
  readonly breaks: string
  readonly verdict: Verdict
  /** The test that decided. */
  readonly guard: Guard | undefined
  /** What it said, or why there is no verdict. */
  readonly said: string
  readonly tries: number
  readonly seconds: number
}

/** A script that Redis does not even take would turn every test red. */
const SCRIPTS_COMPILE: Guard = {
  file: 'test/command-budget.test.ts',
  test: 'the server takes every script, under the digest by which it is called',
}

/** A guard on a busy machine may be red once without a reason; twice is a reason. */
const BASELINE_TRIES = 2

export class Trial {
  readonly #ground: Ground
  readonly #runner: GuardRunner

  constructor(ground: Ground, runner: GuardRunner) {
    this.#ground = ground
    this.#runner = runner
  }

  /** What is red, or not there, before anything is broken. */
  async baseline(mutants: readonly Mutant[]): Promise<string[]> {
    const complaints: string[] = []
    for (const [file, tests] of byFile([SCRIPTS_COMPILE, ...mutants.flatMap(({ guards }) => guards)])) {
      let complaint: string | undefined
      for (let i = 0; i < BASELINE_TRIES; i++) {
        complaint = await this.#complaintAbout(file, [...tests])
        if (complaint === undefined) break
      }
      if (complaint !== undefined) complaints.push(complaint)
    }
    return complaints
  }

  async judge(mutant: Mutant): Promise<TrialResult> {
    const startedNs = Bun.nanoseconds()
    const max = mutant.tries?.max ?? 1
    const { name, promise, breaks } = mutant
    try {
      const change = await mutate(mutant, (file) => this.#ground.read(file))
      if ('stale' in change) {
        return { name, promise, breaks, ...noGuard('stale', change.stale), tries: 0, seconds: 0 }
      }
      await this.#ground.change(change.texts)
      let tries = 0
      let outcome = noGuard('survived', 'every guard stayed green')
      while (tries < max && outcome.verdict === 'survived') {
        tries += 1
        outcome = await this.#try(mutant)
      }
      const seconds = (Bun.nanoseconds() - startedNs) / 1e9
      return { name, promise, breaks, ...outcome, tries, seconds }
    } finally {
      await this.#ground.mend()
    }
  }

  async #try({ edits, guards }: Mutant): Promise<Outcome> {
    const breaksScript = edits.some(({ file }) => file.endsWith('.lua'))
    if (breaksScript) {
      const { file, test } = SCRIPTS_COMPILE
      if ((await this.#runner.run(file, [test])).exitCode !== 0) {
        return { verdict: 'crashed', guard: SCRIPTS_COMPILE, said: 'Redis does not take the broken script' }
      }
    }
    for (const guard of guards) {
      const run = await this.#runner.run(guard.file, [guard.test])
      const [failure] = run.failed
      if (failure !== undefined) {
        return { verdict: failure.meant ? 'killed' : 'crashed', guard, said: failure.said }
      }
      if (run.exitCode !== 0 || run.passed.length === 0) {
        return { verdict: 'crashed', guard, said: `no test failed, but the run did:\n${run.tail}` }
      }
    }
    return noGuard('survived', 'every guard stayed green')
  }

  async #complaintAbout(file: string, tests: readonly string[]): Promise<string | undefined> {
    const run = await this.#runner.run(file, tests)
    const [failure] = run.failed
    if (failure !== undefined) return `${file}: "${failure.test}" is red already: ${failure.said}`
    const missing = tests.find((test) => !run.passed.includes(test))
    if (missing !== undefined) return `${file}: there is no test "${missing}"`
    return run.exitCode === 0 ? undefined : `${file} fails already:\n${run.tail}`
  }
}

type Outcome = Pick<TrialResult, 'verdict' | 'guard' | 'said'>

function noGuard(verdict: Verdict, said: string): Outcome {
  return { verdict, guard: undefined, said }
}

function byFile(guards: readonly Guard[]): Map<string, Set<string>> {
  const files = new Map<string, Set<string>>()
  for (const { file, test } of guards) files.set(file, (files.get(file) ?? new Set()).add(test))
  return files
}
