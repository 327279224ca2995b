// Defects and quality of texts, bound for megatron_ext.corpus.cleaning.
#include <pybind11/stl.h>

#include <cstdint>
#include <map>
#include <string>
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

std::map<std::string, int> character_flags() {
  using Class = CharacterClass;
  return {{"space", Class::kSpace},
          {"separator", Class::kSeparator},
          {"letter", Class::kLetter},
          {"digit", Class::kDigit},
          {"symbol", Class::kSymbol},
          {"sentence_end", Class::kSentenceEnd},
          {"closing", Class::kClosing},
          {"bullet", Class::kBullet},
          {"control", Class::kControl},
          {"odd_line_end", Class::kOddLineEnd},
          {"invisible", Class::kInvisible},
          {"mojibake_letter", Class::kMojibakeLetter},
          {"mojibake_sign", Class::kMojibakeSign},
          {"mojibake_alone", Class::kMojibakeAlone},
          {"composing", Class::kComposing}};
}

std::map<std::string, int> defect_flags() {
  return {{"entity", Defect::kEntity},          {"mojibake", Defect::kMojibake},
          {"line_end", Defect::kLineEnd},       {"control", Defect::kControl},
          {"invisible", Defect::kInvisible},    {"outer_space", Defect::kOuterSpace},
          {"line_space", Defect::kLineSpace},   {"blank_lines", Defect::kBlankLines},
          {"symbol_line", Defect::kSymbolLine}, {"composition", Defect::kComposition}};
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
