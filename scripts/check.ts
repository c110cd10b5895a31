/**
 * The static gate: format, lint, types, architecture, house rules and dead code, all at once. Every check must report
 * how many files it looked at; one that looked at none has failed. Exits with the number of failed checks.
 */
import { join } from 'node:path'

type Check = {
  readonly name: string
  readonly command: readonly string[]
  /** How many files (or tests) the output says were looked at. */
  readonly scanned: (output: string) => number
  readonly remedy: string
}

type Verdict = {
  readonly check: Check
  readonly passed: boolean
  readonly output: string
  readonly line: string
}

const root = join(import.meta.dir, '..')
const tool = (path: string): string => join(root, 'node_modules', path)
const numberIn =
  (pattern: RegExp) =>
  (output: string): number =>
    Number(pattern.exec(output)?.[1] ?? 0)
/** tsc lists what it read, one absolute path a line. */
const isListedFile = (line: string): boolean => line.startsWith('/') || /^[A-Za-z]:[\\/]/.test(line)
const sourcesListed = (output: string): number =>
  output.split('\n').filter((line) => line.startsWith(`${root}/src/`)).length

const checks: readonly Check[] = [
  {
    name: 'types',
    command: [tool('typescript/bin/tsc'), '-p', 'tsconfig.json', '--listFiles'],
    scanned: sourcesListed,
    remedy: 'mend the types; `any`, `!` and `@ts-ignore` are not a way out',
  },
  {
    name: 'declarations',
    command: [tool('typescript/bin/tsc'), '-p', 'tsconfig.build.json', '--noEmit', '--listFiles'],
    scanned: sourcesListed,
    remedy: 'write the type of every export of src/ out, so that a reader and the build need no inference',
  },
  {
    name: 'promises and switches',
    command: [tool('oxlint/bin/oxlint'), '--type-aware'],
    scanned: numberIn(/on (\d+) files?/),
    remedy: 'await the promise or hand it to whoever owns it; name every case of the union',
  },
  {
    name: 'format and syntax',
    command: [tool('@biomejs/biome/bin/biome'), 'check', '--error-on-warnings', '.'],
    scanned: numberIn(/Checked (\d+) files?/),
    remedy: '`bun run format` mends layout and import order; the rest needs a hand',
  },
  {
    name: 'architecture',
    command: ['test', 'test/architecture.test.ts'],
    scanned: numberIn(/(\d+) pass/),
    remedy: 'move the file, or what it needs, to the floor it belongs to; see docs/ARCHITECTURE.md',
  },
  {
    name: 'house rules',
    command: ['test', 'test/tidy.test.ts'],
    scanned: numberIn(/(\d+) pass/),
    remedy: 'each complaint names its place and what to say or do instead',
  },
  {
    name: 'dead code',
    command: [
      tool('knip/bin/knip-bun.js'),
      '--no-config-hints',
      '--reporter',
      'symbols',
      '--reporter',
      './scripts/knip-scanned.ts',
    ],
    scanned: numberIn(/Scanned (\d+) files/),
    remedy: 'delete what nothing uses, or stop exporting it; `bun x knip --fix` does the obvious ones',
  },
]

async function run(check: Check): Promise<Verdict> {
  const startedNs = Bun.nanoseconds()
  const child = Bun.spawn([process.execPath, ...check.command], {
    cwd: root,
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined },
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  const output = `${stdout}\n${stderr}`
  const scanned = check.scanned(output)
  const passed = code === 0 && scanned > 0
  const seconds = ((Bun.nanoseconds() - startedNs) / 1e9).toFixed(1)
  const why =
    code !== 0 ? `exit code ${code}` : scanned === 0 ? 'it looked at nothing' : `${scanned} looked at`
  const line = `${passed ? 'ok  ' : 'FAIL'} ${check.name.padEnd(22)} ${seconds.padStart(5)} s  ${why}`
  return { check, passed, output, line }
}

/** Runs every check at once and prints what to mend. */
export async function runChecks(): Promise<{ passed: number; failed: number }> {
  const verdicts = await Promise.all(checks.map(run))
  const failed = verdicts.filter(({ passed }) => !passed)
  for (const { check, output } of failed) {
    const told = output.split('\n').filter((line) => line.trim() !== '' && !isListedFile(line))
    console.log(`── ${check.name} ──\n${told.join('\n')}\n→ ${check.remedy}\n`)
  }
  for (const { line } of verdicts) console.log(line)
  console.log(`check: ${verdicts.length - failed.length} of ${verdicts.length} passed`)
  return { passed: verdicts.length - failed.length, failed: failed.length }
}

if (import.meta.main) process.exitCode = (await runChecks()).failed
