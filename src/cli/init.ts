/** `millrace init [folder]`: writes a first application that runs as it is, and never over a file that is there. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'
import type { Command } from 'commander'
import { version } from '../../package.json' with { type: 'json' }
import { describeError, MillraceError } from '../contracts/errors.ts'
import gitignore from './templates/gitignore.txt' with { type: 'text' }
import readme from './templates/readme.md.txt' with { type: 'text' }
import tsconfig from './templates/tsconfig.json.txt' with { type: 'text' }
import visitsTest from './templates/visits.test.ts.txt' with { type: 'text' }
import visits from './templates/visits.ts.txt' with { type: 'text' }

interface Template {
  readonly path: string
  readonly text: string
  /** What to do when the file is there: leave it as it is, or write nothing at all. */
  readonly present: 'keep' | 'refuse'
}

const ZOD_RANGE = '^4.0.0'

export function registerInit(program: Command): void {
  program
    .command('init')
    .description('write a first application: a command, its handler, a view, a test')
    .argument('[folder]', 'where; made if it is missing', '.')
    .addHelpText('after', '\nExamples:\n  millrace init\n  millrace init shop && cd shop && bun install\n')
    .action((folder: string) => init(resolve(folder)))
}

function init(folder: string): void {
  const templates = templatesFor(folder)
  const inTheWay = templates.filter(
    ({ path, present }) => present === 'refuse' && existsSync(join(folder, path)),
  )
  if (inTheWay.length > 0) {
    throw new MillraceError(
      'config.invalid',
      `${inTheWay.map(({ path }) => path).join(' and ')} in ${folder} would be overwritten, so nothing was written. Move it away, or name another folder.`,
    )
  }
  const kept = templates.filter(({ path }) => existsSync(join(folder, path)))
  for (const template of templates) if (!kept.includes(template)) write(folder, template)
  for (const { path } of templates) {
    console.error(`millrace: ${kept.some((each) => each.path === path) ? 'kept ' : 'wrote'} ${path}`)
  }
  for (const step of nextSteps(folder, kept)) console.error(`millrace: next: ${step}`)
}

function templatesFor(folder: string): Template[] {
  return [
    { path: 'workers/visits.ts', text: visits, present: 'refuse' },
    { path: 'workers/visits.test.ts', text: visitsTest, present: 'refuse' },
    { path: 'README.md', text: readme, present: 'keep' },
    { path: 'package.json', text: packageJson(folder), present: 'keep' },
    { path: 'tsconfig.json', text: tsconfig, present: 'keep' },
    { path: '.gitignore', text: gitignore, present: 'keep' },
  ]
}

function packageJson(folder: string): string {
  const content = {
    name:
      basename(folder)
        .toLowerCase()
        .replace(/[^a-z0-9-]+/g, '-')
        .replace(/^-+|-+$/g, '') || 'app',
    private: true,
    type: 'module',
    scripts: { start: 'millrace start', test: 'bun test' },
    dependencies: { millrace: `^${version}`, zod: ZOD_RANGE },
  }
  return `${JSON.stringify(content, null, 2)}\n`
}

function write(folder: string, { path, text }: Template): void {
  const file = join(folder, path)
  try {
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, text, { flag: 'wx' })
  } catch (cause) {
    throw new MillraceError('config.invalid', `${file} can't be written: ${describeError(cause)}.`, { cause })
  }
}

function nextSteps(folder: string, kept: readonly Template[]): string[] {
  const here = relative(process.cwd(), folder)
  const missing = kept.some(({ path }) => path === 'package.json') ? missingPackages(folder) : []
  return [
    ...(here === '' ? [] : [`cd ${here}`]),
    missing.length > 0 ? `bun add ${missing.join(' ')}` : 'bun install',
    'bunx millrace start',
  ]
}

/** What a package.json that was there does not name yet. */
function missingPackages(folder: string): string[] {
  const text = readFileSync(join(folder, 'package.json'), 'utf8')
  return ['millrace', 'zod'].filter((name) => !text.includes(`"${name}"`))
}
