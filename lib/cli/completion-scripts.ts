// Scripts that connect shells with `llama-headstart __complete`. A script passes the words up to the cursor. Each line
// of the answer is a candidate, with its description after a tab. The lines `:file` and `:directory` ask for names of
// files and directories.

const BASH = `# Completions of llama-headstart for bash: eval "$(llama-headstart completion bash)"
_llama_headstart() {
  local line IFS=$'\\n'
  COMPREPLY=()
  for line in $("\${COMP_WORDS[0]}" __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
    case $line in
      :file) COMPREPLY+=($(compgen -f -- "\${COMP_WORDS[COMP_CWORD]}")); compopt -o filenames ;;
      :directory) COMPREPLY+=($(compgen -d -- "\${COMP_WORDS[COMP_CWORD]}")); compopt -o filenames ;;
      *) COMPREPLY+=("\${line%%$'\\t'*}") ;;
    esac
  done
}
complete -F _llama_headstart llama-headstart
`;

const ZSH = `#compdef llama-headstart
# Completions of llama-headstart for zsh: source <(llama-headstart completion zsh)
_llama_headstart() {
  local line
  local -a candidates
  for line in "\${(@f)$("\${words[1]}" __complete "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    case $line in
      ('') ;;
      (:file) _files ;;
      (:directory) _files -/ ;;
      (*) candidates+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}") ;;
    esac
  done
  (( \${#candidates} )) && _describe 'llama-headstart' candidates
}
compdef _llama_headstart llama-headstart
`;

const FISH = `# Completions of llama-headstart for fish: llama-headstart completion fish | source
function __llama_headstart
  set -l words (commandline -opc)
  set -l last (commandline -ct)
  for line in ($words[1] __complete $words[2..-1] "$last" 2>/dev/null)
    switch $line
      case ':file'
        __fish_complete_path "$last"
      case ':directory'
        __fish_complete_directories "$last"
      case '*'
        echo $line
    end
  end
end
complete -c llama-headstart -f -a '(__llama_headstart)'
`;

const POWERSHELL = `# Completions of llama-headstart for PowerShell: llama-headstart completion powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName llama-headstart -ScriptBlock {
  param($wordToComplete, $commandAst, $cursorPosition)
  $words = @($commandAst.CommandElements | Where-Object { $_.Extent.EndOffset -lt $cursorPosition } | ForEach-Object { $_.ToString() })
  $program = $words[0]
  $before = @($words | Select-Object -Skip 1)
  $last = if ($wordToComplete) { $wordToComplete } else { '""' }
  & $program __complete @before $last 2>$null | ForEach-Object {
    if ($_ -eq ':file') {
      Get-ChildItem -Path "$wordToComplete*" -ErrorAction SilentlyContinue | ForEach-Object { $_.Name }
    } elseif ($_ -eq ':directory') {
      Get-ChildItem -Path "$wordToComplete*" -Directory -ErrorAction SilentlyContinue | ForEach-Object { $_.Name }
    } else {
      $word, $about = $_ -split "\`t", 2
      if (-not $about) { $about = $word }
      [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $about)
    }
  }
}
`;

/** The scripts by the names of the shells. */
export const COMPLETION_SCRIPTS = { bash: BASH, zsh: ZSH, fish: FISH, powershell: POWERSHELL } as const;
