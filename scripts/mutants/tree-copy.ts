/**
 * A copy of the tree in a temporary folder, which mutants may break: what git knows or would add, as it stands on disk.
 * Packages and tools are links. Temporary folders of the tests lie inside too, so that one removal takes all of it away.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { copyFile, mkdir, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

/** Not copied, but needed. */
const LINKED = ['node_modules', '.tools']

export class TreeCopy {
  readonly folder: string
  readonly #root: string
  readonly #original: string
  /** As they were, by file. */
  readonly #changed = new Map<string, string>()

  /** Makes the folder at once, so that it can be removed at any time. Names are short: a socket's path has some hundred bytes. */
  constructor(original: string) {
    this.#original = original
    this.#root = mkdtempSync(join(tmpdir(), 'mutants-'))
    this.folder = join(this.#root, 'tree')
    mkdirSync(this.temporary)
  }

  /** Where the tests put their own temporary folders. */
  get temporary(): string {
    return join(this.#root, 't')
  }

  async fill(): Promise<void> {
    const listing = Bun.spawn(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
      cwd: this.#original,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [names, code] = await Promise.all([listing.stdout.text(), listing.exited])
    if (code !== 0) throw new Error('git could not list the files of the tree; run this in a clone')
    const files = [...new Set(names.split('\0'))].filter(
      (file) => file !== '' && existsSync(join(this.#original, file)),
    )
    for (const folder of new Set(files.map((file) => dirname(join(this.folder, file))))) {
      await mkdir(folder, { recursive: true })
    }
    await Promise.all(files.map((file) => copyFile(join(this.#original, file), join(this.folder, file))))
    for (const name of LINKED) {
      const target = join(this.#original, name)
      if (existsSync(target)) await symlink(target, join(this.folder, name))
    }
  }

  async read(file: string): Promise<string> {
    return await Bun.file(join(this.folder, file)).text()
  }

  /** Breaks it: these files hold these texts until `mend`. */
  async change(texts: ReadonlyMap<string, string>): Promise<void> {
    for (const [file, text] of texts) {
      this.#changed.set(file, await this.read(file))
      await Bun.write(join(this.folder, file), text)
    }
  }

  async mend(): Promise<void> {
    for (const [file, text] of this.#changed) await Bun.write(join(this.folder, file), text)
    this.#changed.clear()
  }

  /** Synchronous: it must also be done on the way out after Ctrl-C. */
  remove(): void {
    rmSync(this.#root, { recursive: true, force: true, maxRetries: 5, retryDelay: 20 })
  }
}
