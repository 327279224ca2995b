// Defects and quality of texts, bound for megatron_ext.corpus.cleaning.
#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "bindings.h"
#include "character_classes.h"
#include "checks.h"
#include "text_defects.h"
#include "text_quality.h"

namespace megatron_ext {
namespace {

template <typename T>
using Column = py::array_t<T, py::array::c_style>;

// Of what append() appends.
std::vector<const char*> quality_columns() {
  return {"characters",
          "letters",
          "digits",
          "symbols",
          "replacements",
          "hashes",
          "ellipses",
          "newlines",
          "units",
          "unit_characters",
          "letter_words",
          "lines",
          "line_characters",
          "sentence_lines",
          "short_lines",
          "bullet_lines",
          "ellipsis_lines",
          "duplicate_lines",
          "duplicate_line_characters",
          "paragraphs",
          "duplicate_paragraphs",
          "duplicate_paragraph_characters",
          "top_2gram",
          "top_3gram",
          "top_4gram",
          "duplicate_5gram",
          "duplicate_6gram",
          "duplicate_7gram",
          "duplicate_8gram",
          "duplicate_9gram",
          "duplicate_10gram"};
}

py::dict character_flags() {
  using Class = CharacterClass;
  py::dict flags;
  flags["space"] = Class::kSpace + 0;
  flags["separator"] = Class::kSeparator + 0;
  flags["letter"] = Class::kLetter + 0;
  flags["digit"] = Class::kDigit + 0;
  flags["symbol"] = Class::kSymbol + 0;
  flags["sentence_end"] = Class::kSentenceEnd + 0;
  flags["closing"] = Class::kClosing + 0;
  flags["bullet"] = Class::kBullet + 0;
  flags["control"] = Class::kControl + 0;
  flags["odd_line_end"] = Class::kOddLineEnd + 0;
  flags["invisible"] = Class::kInvisible + 0;
  flags["mojibake_letter"] = Class::kMojibakeLetter + 0;
  flags["mojibake_sign"] = Class::kMojibakeSign + 0;
  flags["mojibake_alone"] = Class::kMojibakeAlone + 0;
  flags["composing"] = Class::kComposing + 0;
  return flags;
}

py::dict defect_flags() {
  py::dict flags;
  flags["entity"] = Defect::kEntity + 0;
  flags["mojibake"] = Defect::kMojibake + 0;
  flags["line_end"] = Defect::kLineEnd + 0;
  flags["control"] = Defect::kControl + 0;
  flags["invisible"] = Defect::kInvisible + 0;
  flags["space"] = Defect::kSpace + 0;
  flags["blank_lines"] = Defect::kBlankLines + 0;
  flags["symbol_line"] = Defect::kSymbolLine + 0;
  flags["composition"] = Defect::kComposition + 0;
  return flags;
}

void append(const TextQuality& of, std::vector<std::int64_t>& out) {
  const auto& [top, duplicate] = of.repetition;
  out.insert(out.end(), {of.characters,
                         of.letters,
                         of.digits,
                         of.symbols,
                         of.replacements,
                         of.hashes,
                         of.ellipses,
                         of.newlines,
                         of.units,
                         of.unit_characters,
                         of.letter_words,
                         of.lines,
                         of.line_characters,
                         of.sentence_lines,
                         of.short_lines,
                         of.bullet_lines,
                         of.ellipsis_lines,
                         of.duplicate_lines,
                         of.duplicate_line_characters,
                         of.paragraphs,
                         of.duplicate_paragraphs,
                         of.duplicate_paragraph_characters});
  out.insert(out.end(), top.begin(), top.end());
  out.insert(out.end(), duplicate.begin(), duplicate.end());
}

py::array_t<std::int64_t> defects(const CharacterClasses& classes, const py::list& texts) {
  const auto views = views_of(texts);
  std::vector<std::int64_t> out;
  {
    const py::gil_scoped_release release;
    for (const auto view : views) {
      const auto of = defects_of(view, classes);
      out.insert(out.end(), {of.found, of.characters, of.controls});
    }
  }
  return owned(std::move(out), {static_cast<py::ssize_t>(views.size()), 3});
}

py::array_t<std::int64_t> quality(const CharacterClasses& classes, const py::list& texts,
                                  const Column<std::int64_t>& characters_per_word,
                                  const Column<std::int64_t>& short_line_characters) {
  const auto views = views_of(texts);
  require_argument(static_cast<std::size_t>(characters_per_word.size()) == views.size() &&
                       static_cast<std::size_t>(short_line_characters.size()) == views.size(),
                   "each text has a number of characters per word and per short line");
  const auto *per_word = characters_per_word.data(), *per_line = short_line_characters.data();
  const auto columns = static_cast<py::ssize_t>(quality_columns().size());
  std::vector<std::int64_t> out;
  {
    const py::gil_scoped_release release;
    for (std::size_t i = 0; i < views.size(); ++i) {
      require_argument(per_word[i] >= 0, "a word has ", per_word[i], " characters");
      append(quality_of(views[i], classes, static_cast<std::size_t>(per_word[i]), per_line[i]), out);
    }
  }
  return owned(std::move(out), {static_cast<py::ssize_t>(views.size()), columns});
}

}  // namespace

void bind_quality(py::module_& module) {
  py::class_<CharacterClasses>(module, "CharacterClasses")
      .def(py::init([](const Column<std::uint16_t>& classes) {
             return CharacterClasses({classes.data(), classes.data() + classes.size()});
           }),
           py::arg("classes"))
      .def("defects", &defects, py::arg("texts"))
      .def("quality", &quality, py::arg("texts"), py::arg("characters_per_word"),
           py::arg("short_line_characters"))
      .def_property_readonly_static("QUALITY_COLUMNS", [](const py::object&) { return quality_columns(); })
      .def_property_readonly_static("FLAGS", [](const py::object&) { return character_flags(); })
      .def_property_readonly_static("DEFECTS", [](const py::object&) { return defect_flags(); });
}

}  // namespace megatron_ext
